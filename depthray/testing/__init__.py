"""What depthray promises of architectures, data set forms, loss terms and protocols, as functions that check one.

`python -m depthray.testing mypkg.net` checks one's own; depthray's tests check its own by the same functions.
"""
