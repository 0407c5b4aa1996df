"""Where a student works as a guest: timm, OpenCLIP, and Hugging Face's hub and multimodal language models."""
