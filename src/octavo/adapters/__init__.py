"""Fine-tuning by small additions to frozen layers: LoRA and its kin, over plain and quantized bases."""
