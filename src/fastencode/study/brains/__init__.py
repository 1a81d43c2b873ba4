"""What the layers of a model predict in brains: features at scans, designs, ridge, ceilings, tables, maps."""
