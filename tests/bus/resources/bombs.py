"""Documents that say more than they look like."""


def merge_bomb() -> str:
    """A few lines that say 2 * 9**12 members."""
    lines = ["a0: &a0 {a: 1, b: 2}"]
    for number in range(1, 13):
        aliases = ", ".join([f"*a{number - 1}"] * 9)
        lines.append(f"a{number}: &a{number} {{<<: [{aliases}]}}")
    return "\n".join(lines)
