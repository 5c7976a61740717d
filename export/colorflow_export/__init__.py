"""Training, export and verification of ColorFlow model packs. Needs torch; the runtime never imports this."""
