"""The runtimes, one file each, found by its name.

`TARGETS` in it names the exports that it opens, `PACKAGES` what must be installed, `DEVICES` where it computes. `GAIN` is for those
whose gain over PyTorch is not measured, in words, and `NATIVE` for those that run code which cannot be checked. `load`
makes a function of an export: tensors in the order of its inputs -> tensors in the order of its outputs. Whatever the
model file holds is checked in it before the runtime gets it.
"""
