"""The report and the model card, from what the stages recorded. Measures nothing itself."""
