"""Numbers with their nouns, for people."""


def counted(number: float, one: str, many: str = "") -> str:
    """As `1 call`, `2 calls`; `many` for words whose plural is more than an s (`file systems are frozen`)."""
    return f"{number if isinstance(number, int) else f'{number:g}'} {one if number == 1 else many or f'{one}s'}"
