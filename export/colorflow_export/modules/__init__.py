"""The networks of ColorFlow, from diffusers and transformers blocks, with the released state-dict names."""

from colorflow_export.modules.embedder import Embedder
from colorflow_export.modules.fusion import FusionNet, super_resolve
from colorflow_export.modules.unet import ColorGuider, ColorUNet, fold_lora
from colorflow_export.modules.vae import ColorVAE

__all__ = ["ColorGuider", "ColorUNet", "ColorVAE", "Embedder", "FusionNet", "fold_lora", "super_resolve"]
