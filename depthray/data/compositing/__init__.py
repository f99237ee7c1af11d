"""Pictures of cut-out objects in front of backgrounds, with exact masks, in the layout of MODEST Museum."""
