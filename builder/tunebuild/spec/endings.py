"""Names of files that rows are read from."""

_TEXT = (".jsonl", ".json", ".csv", ".tsv")

#: What such a name ends in.
ENDINGS = (*(kind + packing for kind in _TEXT for packing in ("", ".gz", ".zst")), ".parquet")

#: The same in words.
ENDINGS_SHOWN = f"{', '.join(_TEXT)} (also with .gz or .zst behind) or .parquet"
