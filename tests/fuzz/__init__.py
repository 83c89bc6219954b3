"""Any bytes in the topics that kafetrain reads back. The targets are hypothesis tests; atheris runs the same ones."""
