"""Files <-> tensors: photos read and written, their metadata, the size a network looks at."""

# Of a photo, unless a caller allows more: a small file can claim any number, and each takes bytes of memory. Here, where a command line finds it
# without loading Pillow or torch.
MAX_PIXELS = 180_000_000
