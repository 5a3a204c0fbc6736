"""ComfyUI-AdaIN. ComfyUI imports this folder as a package; the nodes are handed to it from here."""

import importlib.util

WEB_DIRECTORY = "./web"

# Tests and installers import this file as well, without ComfyUI.
if __package__ and importlib.util.find_spec("comfy_api") is not None:
    from .nodes import comfy_entrypoint as comfy_entrypoint
