"""Operations: health, metrics, tracing and clean-up."""
