"""Proves that the merged model is the trained model, and measures what training did."""
