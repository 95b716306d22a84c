"""Stock transformers models at work: loaded, compared, measured, made. They know live models; ignorant of training."""
