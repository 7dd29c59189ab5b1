"""Public networks in their published formats, loaded once for conditioners and judges alike."""
