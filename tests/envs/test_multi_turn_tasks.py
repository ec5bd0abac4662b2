"""The rules of the tasks of several turns, against slow and obvious ones, and Gymnasium's own where it has them."""

import itertools
import random
from typing import Any

import gymnasium
import numpy as np
import pytest

from envs import grids, hangman, hanoi, mastermind, sokoban, wordle
from envs.frozen_lake import FrozenLake
from envs.guess_number import GuessNumber
from envs.key_door import KeyDoor
from envs.text_env import TextEnv
from envs.trade import Trade
from envs.words import WORDS

SEEDS = range(25)


def opened(env: TextEnv[Any], seed: int) -> str:
    return env.reset(seed=seed, options={"split": "test"})[0]


def test_guess_number_is_found_by_halving() -> None:
    env = GuessNumber(guesses=9)
    for seed in SEEDS:
        low, high = map(int, opened(env, seed).split("-"))
        terminated = False
        while not terminated:
            guess = (low + high) // 2
            said, reward, terminated, *_ = env.step(str(guess))
            low, high = (guess + 1, high) if said == ">" else (low, guess - 1)
        assert reward == 1


@pytest.mark.parametrize("text", ["", "0", "501", "0250", "-1", "2.5", "１２", "²", "9" * 5000, "1 2"])
def test_guess_number_takes_numbers_of_the_range_alone(text: str) -> None:
    env = GuessNumber()
    opened(env, 0)
    assert env.step(text)[:3] == ("?", 0.0, False)


def test_guess_number_ends_after_its_guesses() -> None:
    env = GuessNumber(guesses=2)
    opened(env, 0)
    other = "1" if env.instance != 1 else "2"
    assert env.step(other) == (">" if env.instance > int(other) else "<", 0.0, False, False, {})
    assert env.step(other) == ("", 0.0, True, False, {})


def marks_slowly(code: tuple[int, ...], guess: tuple[int, ...]) -> str:
    """Cross out pairs in the same place, then pairs anywhere."""
    a, b = list(code), list(guess)
    for i in range(len(code)):
        if a[i] == b[i]:
            a[i], b[i] = -1, -2
    placed, elsewhere = a.count(-1), 0
    for colour in b:
        if colour >= 0 and colour in a:
            a[a.index(colour)] = -3
            elsewhere += 1
    return f"{placed}{elsewhere}"


def test_mastermind_marks() -> None:
    codes = list(itertools.product(range(4), repeat=3))
    for code, guess in itertools.product(codes, codes):
        assert mastermind.marks(code, guess) == marks_slowly(code, guess)


def test_mastermind_demonstrator_agrees_with_all_marks() -> None:
    env = mastermind.Mastermind()
    rng = np.random.default_rng(0)
    solved = 0
    for _ in range(100):
        turns = env.demonstrate(rng)
        solved += turns[-1][1] == env.instance.code
        assert len(set(turns[0][0])) == 4 and set(env.instance.code) <= set(turns[0][0])
        if turns[-1][1] == env.instance.code and env._heeds:
            for earlier, later in itertools.pairwise(turns):
                place = turns[0][0].index
                code, guess = (tuple(map(place, turn[1])) for turn in (turns[-1], earlier))
                assert later[0] == marks_slowly(code, guess)
    assert solved > 10


@pytest.mark.parametrize("text", ["", "zz", "1", "????", "KKR"])
def test_mastermind_says_what_it_cannot_read(text: str) -> None:
    env = mastermind.Mastermind()
    opened(env, 0)
    assert env.step(text)[:3] == ("?", 0.0, False)


@pytest.mark.parametrize(
    ("word", "guess", "marks"),
    [("crane", "crane", "ggggg"), ("apple", "paper", "yygy-"), ("abbey", "babes", "yygg-"), ("eight", "eerie", "g--y-"),
     ("robot", "floor", "--ygy"), ("sweet", "geese", "-ygy-"), ("light", "brown", "-----")],
)  # fmt: skip
def test_wordle_marks(word: str, guess: str, marks: str) -> None:
    assert wordle.marks(word, guess) == marks


def test_words_are_fit_for_the_games() -> None:
    assert len(WORDS) == len(set(WORDS)) >= 300
    assert all(len(word) == 5 and word.isascii() and word.isalpha() and word.islower() for word in WORDS)


def test_wordle_plays_by_its_marks() -> None:
    env = wordle.Wordle(clues=2)
    for seed in SEEDS:
        clues = [line.split() for line in opened(env, seed).split("\n")]
        assert len(clues) == 2 and all(wordle.marks(env.instance.word, clue) == marks for clue, marks in clues)
        assert env.step("Crane")[0] == env.step("cranes")[0] == "?"
        assert env.step("zzzzz")[0] == wordle.marks(env.instance.word, "zzzzz")
        assert env.step(env.instance.word) == ("", 1.0, True, False, {})


def test_hangman_shows_letters_in_all_their_places() -> None:
    env = hangman.Hangman(misses=10)
    for seed in SEEDS:
        view, terminated, missed = opened(env, seed), False, ""
        assert view.count(".") == 5 - env.instance.word.count(env.instance.shown)
        for letter in random.Random(seed).sample("etaoinshrdlucmfwypvbgkjqxz", 26):
            if terminated or letter == env.instance.shown:
                continue
            view, reward, terminated, *_ = env.step(letter)
            missed += letter * (letter not in env.instance.word)
            if not terminated:
                pattern, *wrong = view.split()
                assert all(a in (b, ".") for a, b in zip(pattern, env.instance.word, strict=True))
                assert (letter in pattern) == (letter in env.instance.word) and wrong == [missed] * bool(missed)
        assert terminated and reward == (len(missed) < 10)


def test_hangman_counts_a_letter_twice_as_a_miss() -> None:
    env = hangman.Hangman(misses=2)
    opened(env, 0)
    assert env.step(env.instance.shown)[2] is False
    assert env.step(env.instance.shown)[:3] == ("", 0.0, True)


def moved_slowly(position: str, move: str) -> str:
    """Play the moves with real stacks."""
    pegs = {peg: [disc for disc in reversed(range(len(position))) if position[disc] == peg] for peg in "abc"}
    source, target = pegs[move[0]], pegs[move[1]]
    if source and (not target or target[-1] > source[-1]):
        target.append(source.pop())
    where = {disc: peg for peg, discs in pegs.items() for disc in discs}
    return "".join(where[disc] for disc in range(len(position)))


def test_hanoi_moves() -> None:
    for position in itertools.product("abc", repeat=4):
        for move in hanoi.MOVES:
            text = "".join(position)
            assert (hanoi.moved(text, move) or text) == moved_slowly(text, move)
    for nonsense in ("", "aa", "abc", "a", "AB", "ad", "0"):
        assert hanoi.moved("abc", nonsense) is None


@pytest.mark.parametrize("discs", [3, 5, 7])
def test_a_whole_tower_takes_the_known_number_of_moves(discs: int) -> None:
    assert hanoi.distances("c" * discs)["a" * discs] == 2**discs - 1
    assert len(hanoi.distances("c" * discs)) == 3**discs


def test_hanoi_gives_as_many_moves_as_it_takes() -> None:
    for slack in (0, 2):
        env = hanoi.Hanoi(slack=slack)
        for seed in SEEDS:
            start, target = opened(env, seed).split(">")
            turns, terminated = 0, False
            while not terminated:
                terminated, turns = env.step("aa")[2], turns + 1
            assert turns == hanoi.distances(target)[start] + slack >= 3


@pytest.mark.parametrize("slippery", [False, True])
def test_frozen_lake_moves_as_gymnasiums_does(slippery: bool) -> None:
    env = FrozenLake(slippery=slippery, slack=4)
    rng = np.random.default_rng(0)
    slid = 0
    for seed in SEEDS:
        opened(env, seed)
        lake = env.instance
        letters = {lake.start: "S", lake.goal: "G"} | dict.fromkeys(lake.holes, "H")
        rows = ["".join(letters.get((row, column), "F") for column in range(4)) for row in range(4)]
        theirs: Any = gymnasium.make("FrozenLake-v1", desc=rows, is_slippery=slippery).unwrapped
        place, terminated = lake.start[0] * 4 + lake.start[1], False
        while not terminated:
            turn, action = env.turn, int(rng.integers(4))
            _, reward, terminated, *_ = env.step("ldru"[action])
            outcomes = theirs.P[place][action]  # (probability, place, reward, terminated), in the order of the slips
            expected = outcomes[lake.slips[turn] + 1] if slippery else outcomes[0]
            slid += slippery and lake.slips[turn] != 0
            place = env._player[0] * 4 + env._player[1]
            assert (place, reward) == expected[1:3]
            assert expected[3] <= terminated
        theirs.close()
    assert bool(slid) is slippery


def test_frozen_lake_says_where_one_is() -> None:
    env = FrozenLake()
    text = opened(env, 0)
    start, goal = text.split(",")[0].split(" to ")
    assert (grids.named(env.instance.start), grids.named(env.instance.goal)) == (start, goal)
    assert env.step("up")[0] == env.step("")[0] == start


def fewest_moves_slowly(drawn: str) -> int:
    """Return the length of the shortest solution, by trying all sequences in order of length with sets of states."""
    rows = drawn.split("\n")
    cells = {(r, c): letter for r, row in enumerate(rows) for c, letter in enumerate(row)}
    states = {(next(place for place, letter in cells.items() if letter == "@"), False)}
    for count in range(1, 100):
        following = set()
        for (row, column), holds in states:
            for place in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                letter = cells.get(place, "#")
                if letter == "D" and holds:
                    return count
                if letter not in "#D":
                    following.add((place, holds or letter == "K"))
        states |= following
    raise AssertionError(f"no way in {drawn}")


@pytest.mark.parametrize("options", [{}, {"rows": 5, "columns": 6, "walls": 6}])
def test_key_door_can_be_solved_in_its_moves_and_not_without_the_key(options: dict[str, int]) -> None:
    env = KeyDoor(**options)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    fetched = 0
    for _ in range(100):
        turns = env.demonstrate(rng)
        won = env.score(env.instance, [answer for _, answer in turns])
        fewest = fewest_moves_slowly(turns[0][0])
        assert won == any("&" in observation for observation, _ in turns)
        assert len(turns) == fewest if won else len(turns) <= fewest
        fetched += won
    assert 10 < fetched < 50


def test_key_door_bumps_into_walls_and_edges() -> None:
    env = KeyDoor()
    for seed in SEEDS:
        before = opened(env, seed)
        assert env.step("x")[0] == before


@pytest.mark.parametrize(
    ("state", "move", "expected"),
    [
        (((0, 0), {(0, 1)}), "r", ((0, 1), {(0, 2)})),  # a push
        (((0, 0), {(0, 1), (0, 2)}), "r", ((0, 0), {(0, 1), (0, 2)})),  # two boxes are too many
        (((0, 1), {(0, 2)}), "r", ((0, 1), {(0, 2)})),  # against the edge
        (((0, 0), {(1, 0)}), "d", ((0, 0), {(1, 0)})),  # against a wall, at (2, 0)
        (((0, 1), {(0, 2)}), "l", ((0, 0), {(0, 2)})),  # nothing is pulled
        (((0, 0), {(0, 1)}), "u", ((0, 0), {(0, 1)})),  # off the grid
    ],
)
def test_sokoban_moves(state: Any, move: str, expected: Any) -> None:
    free = frozenset(grids.squares(3, 3)) - {(2, 0)}
    player, boxes = sokoban.moved(state[0], frozenset(state[1]), move, free)
    assert (player, set(boxes)) == expected


@pytest.mark.parametrize("options", [{"longest": 6}, {"boxes": 2, "rows": 4, "columns": 4, "walls": 0, "longest": 6}])
def test_sokoban_has_no_shorter_solution(options: dict[str, int]) -> None:
    env = sokoban.Sokoban(**options)  # type: ignore[arg-type]
    for seed in range(5):
        opened(env, seed)
        room, free = env.instance, env._free(env.instance)
        assert 3 <= env._moves <= 6
        solved = []
        for moves in itertools.product("ldru", repeat=env._moves):
            player, boxes = room.player, room.boxes
            for count, move in enumerate(moves, 1):
                player, boxes = sokoban.moved(player, boxes, move, free)
                if boxes == room.goals:
                    solved.append(count)
                    break
        assert min(solved) == env._moves


def solved_slowly(player: grids.Square, boxes: frozenset[grids.Square], goals: Any, free: Any) -> str | None:
    """Breadth first over every position, those without a future too."""
    ways = {(player, boxes): ""}
    queue = [(player, boxes)]
    for state in queue:
        if state[1] == goals:
            return ways[state]
        for move in "ldru":
            following = sokoban.moved(*state, move, free)
            if following not in ways:
                ways[following] = ways[state] + move
                queue.append(following)
    return None


@pytest.mark.parametrize("boxes", [1, 2])
def test_sokoban_is_solved_as_by_looking_at_everything(boxes: int) -> None:
    """Positions without a future are left out, and the solution is the same one; or there is none."""
    rng = np.random.default_rng(0)
    squares, lengths = grids.squares(3, 4), set()
    for _ in range(60):
        player, *others = [squares[i] for i in rng.permutation(12)[: 2 + 2 * boxes].tolist()]
        stand, goals, free = frozenset(others[:boxes]), frozenset(others[boxes:-1]), frozenset(squares) - {others[-1]}
        slowly = solved_slowly(player, stand, goals, free)
        assert sokoban.solution(player, stand, goals, free) == slowly
        assert sokoban.solution(player, stand, goals, free, 5) == (slowly if slowly and len(slowly) <= 5 else None)
        lengths.add(len(slowly) if slowly else None)
    assert None in lengths and len(lengths) > 3


def test_sokoban_draws_what_others_draw() -> None:
    env = sokoban.Sokoban(rows=3, columns=3, walls=1)
    room = sokoban.Room((0, 1), frozenset({(1, 1)}), frozenset({(2, 1)}), frozenset({(0, 0)}))
    assert env._start(room) == "#@-\n-$-\n-.-"
    assert env._drawn(room, (2, 1), frozenset({(1, 1)})) == "#--\n-$-\n-+-"
    assert env._drawn(room, (1, 1), frozenset({(2, 1)})) == "#--\n-@-\n-*-"


@pytest.mark.parametrize("options", [{}, {"steps": 6, "astray": 3, "shuffled": True}, {"steps": 2, "astray": 2}])
def test_trade_has_one_way(options: dict[str, int]) -> None:
    env = Trade(**options)  # type: ignore[arg-type]
    steps = options.get("steps", 4)
    for seed in SEEDS:
        head, swaps = opened(env, seed).split(": ")
        have, want = head.split(">")
        ways = [have]
        for _ in range(steps):
            ways = [way + swap[1] for way in ways for swap in swaps.split() if swap[0] == way[-1]]
        (way,) = [way for way in ways if way[-1] == want]
        for turn, good in enumerate(way[1:], 1):
            said, reward, terminated, *_ = env.step(good)
            assert (said, reward, terminated) == (("", 1.0, True) if turn == steps else (good, 0.0, False))


def test_trade_pays_nothing_astray() -> None:
    env = Trade()
    opened(env, 0)
    chain = env.instance.chain
    astray = next(swap[1] for swap in env.instance.swaps if swap[0] == chain[0] and swap[1] != chain[1])
    assert env.step(astray)[0] == astray
    assert [env.step(good)[1] for good in chain[2:]] == [0, 0, 0]


@pytest.mark.parametrize("options", [{"size": 3, "holes": 7}, {"size": 9, "holes": 30}])
def test_frozen_lake_of_any_size_has_a_way_or_is_refused(options: dict[str, int]) -> None:
    env = FrozenLake(**options)  # type: ignore[arg-type]
    if options["holes"] == 7:
        with pytest.raises(ValueError, match="found none in 10000 draws with size=3"):
            opened(env, 0)
    else:
        assert " to " in opened(env, 0)
