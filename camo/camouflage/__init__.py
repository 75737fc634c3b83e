"""Files in, camouflaged files out: decoding, filtering and encoding at once, several processes, verification."""
