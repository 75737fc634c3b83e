"""What measures camouflage: metrics, real operations on shared photos, contact sheet, charts and report."""
