"""Knowledge: documents and answered questions that agents answer from."""
