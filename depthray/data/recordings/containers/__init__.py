"""One reader for each kind of recorded file, all of them alike: see `depthray.data.recordings.recording`."""
