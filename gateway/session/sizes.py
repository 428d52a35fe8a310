"""How much memory texts are counted as."""


def utf8_size(text: str) -> int:
    """How many bytes a text has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
