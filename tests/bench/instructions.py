def check(*, store: bool, profile: int) -> int:
    return 0
