"""The runtimes, one file each, found by its name.

`TARGETS` in it names the exports that it opens, `available()` is "" or says what to install, and `open` makes a function
of an export that maps tensors, in the order of its inputs, to tensors in the order of its outputs.
"""
