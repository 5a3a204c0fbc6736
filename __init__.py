"""ComfyUI-AdaIN. ComfyUI imports this folder as a package; the nodes are handed to it from here."""
