"""What judges a photo: frozen blind quality models, and how those that come with the project were trained."""

# What the flag --biqa of every verb takes; here, where a command line finds it without loading torch.
SPEC_HELP = (
    "bundled, koncept512[:FILE], pyiqa:NAME, a FILE.safetensors that python -m camo.quality.training or camo distil wrote, or a TorchScript FILE.ts,"
    " which is code that will be run: load only files that you trust"
)
