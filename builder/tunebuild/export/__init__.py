"""Exports of the merged model in fewer bits, made by tools in environments of their own."""
