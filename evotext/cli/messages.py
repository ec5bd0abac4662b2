"""The wording of configuration mistakes, one line each: what was expected, what came, what to change."""

import difflib
import re
from collections.abc import Iterable

import pydantic
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

LONGEST_LINE, LONGEST_VALUE = 600, 60

# The expected value in words for each of pydantic's error types, with the bounds that come along.
_EXPECTED = {
    "int_type": "an integer",
    "int_parsing": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a group of keys",
    "none_required": "null",
    "literal_error": "{expected}",
    "greater_than": "a number greater than {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number less than {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "callable_type": "a `_target_` to call",
    "is_instance_of": "a `_target_` that makes a {class}",
}


def explain(error: BaseException) -> str:
    """Return one line for an error of Hydra, OmegaConf or the project."""
    if isinstance(error, OverrideParseException):
        return _explain_syntax(error)
    if isinstance(error, MissingConfigException):
        return _explain_choice(error)
    cause = _first_cause(error)
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
        return _explain_key(cause)
    if isinstance(cause, MissingMandatoryValue):
        return no_value(cause.full_key or "a key")
    if isinstance(cause, RecursionError):
        return "expected values of a finite depth, got one that is nested too deeply or refers to itself"
    if isinstance(cause, OmegaConfBaseException):
        key = f"{cause.full_key}: " if cause.full_key else ""
        return key + one_line(str(cause).partition("\n    full_key:")[0])
    if isinstance(cause, OSError) and cause.filename is not None:
        return f"expected a folder or file that can be used, got {shown(str(cause.filename))}: {cause.strerror}"
    told = "" if isinstance(cause, AssertionError) else one_line(str(cause))
    return told or f"Hydra does not accept this command line ({type(cause).__name__})"


def explain_validation(error: pydantic.ValidationError, path: str) -> str:
    """Return one line for the first key that a checked constructor or record (`evotext.validation`) at `path` refused."""
    details = error.errors(include_url=False)
    # A union reports each of its members at its own place below the key.
    place = details[0]["loc"][:1]
    alike = [detail for detail in details if detail["loc"][:1] == place]
    key = ".".join(filter(None, [path, *map(str, place)]))
    if details[0]["type"].startswith("missing"):
        return no_value(key)
    if details[0]["type"] == "unexpected_keyword_argument":
        return unknown_key(path, str(place[0]), ())
    wanted = " or ".join(dict.fromkeys(map(_expected, alike)))
    words = re.findall(r"'(\w+)'", wanted) if details[0]["type"] == "literal_error" else []
    others = len({detail["loc"][:1] for detail in details}) - 1
    more = f" ({others} more of its keys {'is' if others == 1 else 'are'} refused)" if others else ""
    return f"{key}: expected {wanted}, got {shown(alike[0]['input'])}{suggestion(alike[0]['input'], words)}{more}"


def own_check(error: pydantic.ValidationError) -> ValueError | None:
    """Return the error that a checked record raised for several values together; None if a single key was refused."""
    first = error.errors(include_url=False)[0]
    of_all = not first["loc"] and first["type"] == "value_error"
    return first["ctx"]["error"] if of_all else None


def no_value(path: str) -> str:
    """Return the message for a key without a value."""
    return f"{path}: expected a value, got none; add {path}=..."


def unknown_key(path: str, key: str, known: Iterable[str]) -> str:
    """Return the message for a key that nothing reads."""
    return f"{path or 'configuration'}: expected a known key, got {key!r}{near(key, known)}"


def near(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` with the closest known words, or the list of all."""
    names = sorted(name for name in known if not name.startswith("_"))
    return suggestion(word, names) or (f"; known: {', '.join(names)}" if names else "")


def suggestion(word: object, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` with the closest known words, or nothing."""
    close = difflib.get_close_matches(str(word), list(known), n=2)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def shown(value: object) -> str:
    """Return a value as people write it, shortened."""
    text = str(value).lower() if isinstance(value, bool) else "null" if value is None else without_secrets(repr(value))
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def without_secrets(text: str) -> str:
    """Return the text with stars for the user name and password in a URL."""
    return re.sub(r"(?<=://)[^/@\s'\"]+@", "***@", text)


def one_line(text: str) -> str:
    """Return the text on one line: white space folded, unprintable characters escaped, shortened, without secrets."""
    line = " ".join(without_secrets(text).split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 3] + "..."


def _first_cause(error: BaseException) -> BaseException:
    """Return the first error of a chain with a message of its own: Hydra wraps what it catches."""
    while error.__cause__ is not None and (not str(error) or isinstance(error.__cause__, OmegaConfBaseException)):
        if isinstance(error, OmegaConfBaseException) and error.full_key:
            break  # its own causes are less precise
        error = error.__cause__
    return error


def _explain_syntax(error: OverrideParseException) -> str:
    key, equals, _ = error.override.partition("=")
    if not equals:
        return f"expected key=value, got {shown(error.override)}"
    advice = "; quote values with special characters: key=\"'value'\""
    return f"expected key=value, got {shown(error.override)}{advice if key.strip('+~').isidentifier() else ''}"


def _explain_choice(error: MissingConfigException) -> str:
    name = error.missing_cfg_file or ""
    group, slash, choice = name.rpartition("/")
    if error.options is None or not slash:
        return f"expected a configuration that is there, got {shown(name)}"
    options = sorted(option.removeprefix(group + "/") for option in error.options)
    listed = " or ".join(filter(None, [", ".join(options[:-1]), options[-1] if options else ""]))
    advice = suggestion(choice, options) or "; groups of your own need --config-dir DIR"
    return f"{group}: expected {listed or 'nothing, since there is none'}, got {shown(choice)}{advice}"


def _explain_key(error: ConfigKeyError | ConfigAttributeError) -> str:
    path, _, key = str(error.full_key).rpartition(".")
    parent = error.parent_node
    return unknown_key(path, key, map(str, parent) if isinstance(parent, DictConfig) else ())


def _expected(detail: object) -> str:
    assert isinstance(detail, dict)
    wording = _EXPECTED.get(detail["type"])
    if wording is None:
        return one_line(detail["msg"].removeprefix("Input should be "))
    return wording.format(**detail.get("ctx", {}))
