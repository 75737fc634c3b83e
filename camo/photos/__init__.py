"""Files <-> tensors: photos read and written, their metadata, the size a network looks at."""
