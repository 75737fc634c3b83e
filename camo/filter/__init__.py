"""What changes a photo: the U-Net filter, its frozen trunk, the just-noticeable difference, large photos, weights."""
