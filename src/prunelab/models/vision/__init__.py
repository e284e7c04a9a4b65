"""Vision-language models: images, prompts and model inputs."""
