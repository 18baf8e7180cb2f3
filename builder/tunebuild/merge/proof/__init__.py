"""Proves that written weights are the trained model's. Shares no code with the merge that wrote them."""
