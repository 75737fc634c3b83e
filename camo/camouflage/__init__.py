"""Files in, camouflaged files out: decoding, filtering and encoding at once, on one machine or on a cluster; verification."""
