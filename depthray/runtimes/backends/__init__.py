"""The runtimes, one file each, found by its name.

`TARGETS` in it names the exports that it opens, `PACKAGES` what must be installed, `DEVICES` where it computes. `GAIN`
says in words what it gains over PyTorch where that is not measured, `NATIVE` that its files cannot be checked,
`OWN_THREADS` that it computes on threads that are not PyTorch's. `load` makes a function of an export: tensors in the
order of its inputs -> tensors in the order of its outputs. Whatever the model file holds is checked in it before the
runtime gets it.
"""
