"""The synthetic world: invented animals, people and things with fixed facts, drawn from a seed.

Every entity has direct facts, one of which is its sort: an animal's kind, a person's trade, a thing's material. Every
sort has facts that all its members share. A question about a member's shared fact therefore requires two hops: from
the member to its sort, and from the sort to the fact. Half of these pairs never occur in training.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product

from prunelab.pocket.held_out import digest

SEED = 2025


@dataclass(frozen=True)
class Relation:
    """A relation between an entity and a value.

    Attributes:
        name: unique name of the relation.
        values: the possible values, at least eight.
        predicates: phrases that follow the entity, ending in `{v}` for the value.
        questions: questions for the value, with `{x}` for the entity.
    """

    name: str
    values: tuple[str, ...]
    predicates: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Population:
    """The entities of one class and their relations.

    Attributes:
        name: name of the class.
        phrase: noun phrase of an entity, with `{}` for its name.
        pronoun: pronoun for the second mention.
        names: names of the entities.
        sort: the direct relation whose values the shared relations apply to.
        direct: relations with one value per entity, including the sort.
        shared: relations with one value per sort.
    """

    name: str
    phrase: str
    pronoun: str
    names: tuple[str, ...]
    sort: Relation
    direct: tuple[Relation, ...]
    shared: tuple[Relation, ...]


@dataclass(frozen=True)
class Fact:
    """One true statement: an entity, a relation and its value, and whether it is held out of training."""

    population: Population
    entity: str
    relation: Relation
    value: str
    is_shared: bool

    @property
    def subject(self) -> str:
        """The entity's noun phrase."""
        return self.population.phrase.format(self.entity)

    @property
    def is_withheld(self) -> bool:
        """Whether training omits the fact, so that it must be inferred: half of every entity's two-hop facts."""
        return self.is_shared and self.relation.name in _withheld(self.population, self.entity)

    @property
    def withheld_question(self) -> int:
        """Index of the question that training never asks about this entity."""
        return digest("question", self.entity, self.relation.name) % len(self.relation.questions)

    def question(self, index: int) -> str:
        """The question with the given index, such as `What does the velmo eat?`."""
        return capital(self.relation.questions[index].format(x=self.subject))

    def statement(self, index: int, subject: str | None = None) -> str:
        """The statement with the given index, such as `The velmo eats seeds.`."""
        return capital(f"{subject or self.subject} {self.predicate(index)}.")

    def predicate(self, index: int) -> str:
        """The predicate with the given index, such as `eats seeds`."""
        return self.relation.predicates[index].format(v=self.value)


@dataclass(frozen=True)
class World:
    """All populations and all facts."""

    populations: tuple[Population, ...]
    facts: tuple[Fact, ...]

    @cached_property
    def direct(self) -> tuple[Fact, ...]:
        """The one-hop facts."""
        return tuple(fact for fact in self.facts if not fact.is_shared)

    @cached_property
    def shared(self) -> tuple[Fact, ...]:
        """The two-hop facts."""
        return tuple(fact for fact in self.facts if fact.is_shared)

    @cached_property
    def told(self) -> tuple[Fact, ...]:
        """The facts that training states and asks for."""
        return tuple(fact for fact in self.facts if not fact.is_withheld)

    @cached_property
    def told_of(self) -> Mapping[str, tuple[Fact, ...]]:
        """The facts of `told`, by entity."""
        by_entity: dict[str, list[Fact]] = {}
        for fact in self.told:
            by_entity.setdefault(fact.entity, []).append(fact)
        return {entity: tuple(facts) for entity, facts in by_entity.items()}


@cache
def _withheld(population: Population, entity: str) -> frozenset[str]:
    names = sorted((relation.name for relation in population.shared), key=lambda name: digest("two hops", entity, name))
    return frozenset(names[: len(names) // 2])


def capital(text: str) -> str:
    """The text with its first letter in upper case, the others unchanged."""
    return text[:1].upper() + text[1:]


def _relation(name: str, values: str, predicates: str, questions: str) -> Relation:
    split = [tuple(part.strip() for part in text.split("|")) for text in (values, predicates, questions)]
    return Relation(name, *split)


_ANIMALS = (
    _relation(
        "kind",
        "bird|fish|lizard|beetle|snake|frog|bat|crab",
        "is a {v}|is a sort of {v}|counts as a {v}",
        "what kind of animal is {x}?|"
        "which kind does {x} belong to?|what sort of creature is {x}?|{x} is a kind of what?",
    ),
    _relation(
        "home",
        "river|forest|cave|meadow|marsh|desert|cliff|lake",
        "lives in the {v}|makes its home in the {v}|is found in the {v}",
        "where does {x} live?|where is {x} found?|what is the home of {x}?|in which place does {x} stay?",
    ),
    _relation(
        "food",
        "seeds|moss|honey|worms|leaves|berries|snails|roots",
        "eats {v}|feeds on {v}|likes to eat {v}",
        "what does {x} eat?|what does {x} feed on?|what is the food of {x}?|which food does {x} like?",
    ),
    _relation(
        "colour",
        "red|blue|green|yellow|black|white|brown|grey",
        "is coloured {v}|has a coat of {v}|looks {v}",
        "what colour is {x}?|which colour does {x} have?|what is the colour of {x}?|how is {x} coloured?",
    ),
)
_KINDS = (
    _relation(
        "cover",
        "feathers|scales|fur|shells|bristles|spines|wool|plates",
        "is covered with {v}|wears {v}|is clad in {v}",
        "what covers {x}?|what is {x} covered with?|what does the skin of {x} bear?|what is {x} clad in?",
    ),
    _relation(
        "young",
        "chicks|pups|grubs|cubs|kits|calves|lambs|foals",
        "calls its young {v}|has young called {v}|raises {v}",
        "what are the young of {x} called?|what does {x} raise?|"
        "what are the little ones of {x}?|what name have the young of {x}?",
    ),
    _relation(
        "fear",
        "thunder|smoke|frost|fire|wind|dogs|bells|hail",
        "fears {v}|is afraid of {v}|runs from {v}",
        "what does {x} fear?|what is {x} afraid of?|what does {x} run from?|what frightens {x}?",
    ),
    _relation(
        "motion",
        "hopping|gliding|crawling|swimming|digging|leaping|climbing|rolling",
        "moves by {v}|gets about by {v}|travels by {v}",
        "how does {x} move?|how does {x} get about?|by what does {x} travel?|what is the motion of {x}?",
    ),
    _relation(
        "hour",
        "dawn|noon|dusk|midnight|sunset|sunrise|evening|moonrise",
        "wakes at {v}|gets up at {v}|is awake from {v}",
        "when does {x} wake?|when does {x} get up?|from when is {x} awake?|what is the waking hour of {x}?",
    ),
    _relation(
        "nest",
        "holes|nests|webs|burrows|mounds|hollows|reeds|rocks",
        "sleeps among {v}|rests in {v}|hides in {v}",
        "what does {x} sleep among?|where does {x} rest?|what does {x} hide in?|what are the beds of {x}?",
    ),
)
_PEOPLE = (
    _relation(
        "trade",
        "baker|miller|smith|tailor|potter|weaver|fisher|carpenter",
        "is a {v}|works as a {v}|became a {v}",
        "what is {x} by trade?|what does {x} work as?|what is the trade of {x}?|what did {x} become?",
    ),
    _relation(
        "town",
        "Arbury|Brenholt|Corvale|Dunmere|Elmstow|Farrow|Gildon|Harwick",
        "lives in {v}|comes from {v}|has a house in {v}",
        "where does {x} live?|where does {x} come from?|"
        "which town is the home of {x}?|in which town is the house of {x}?",
    ),
    _relation(
        "instrument",
        "flute|drum|harp|horn|fiddle|lute|pipe|organ",
        "plays the {v}|is good at the {v}|learned the {v}",
        "what does {x} play?|which instrument is {x} good at?|"
        "what did {x} learn to play?|what is the instrument of {x}?",
    ),
    _relation(
        "drink",
        "tea|milk|cider|juice|water|coffee|broth|cocoa",
        "drinks {v}|is fond of {v}|always asks for {v}",
        "what does {x} drink?|which drink is {x} fond of?|what does {x} ask for?|what is the drink of {x}?",
    ),
)
_TRADES = (
    _relation(
        "tool",
        "hammer|needle|rake|chisel|ladle|sickle|brush|spade",
        "uses a {v}|works with a {v}|owns a {v}",
        "what does {x} use?|what does {x} work with?|which tool does {x} own?|what is the tool of {x}?",
    ),
    _relation(
        "workplace",
        "tower|yard|mill|market|quay|vault|stable|gate",
        "works at the {v}|is busy at the {v}|can be met at the {v}",
        "where does {x} work?|where is {x} busy?|where can {x} be met?|what is the workplace of {x}?",
    ),
    _relation(
        "garment",
        "robe|hat|cloak|scarf|belt|vest|cap|coat",
        "wears a {v} at work|goes to work in a {v}|puts on a {v}",
        "what does {x} wear at work?|what does {x} go to work in?|what does {x} put on?|what is the garment of {x}?",
    ),
    _relation(
        "month",
        "January|March|April|May|June|July|August|October",
        "rests in {v}|takes leave in {v}|goes home in {v}",
        "when does {x} rest?|in which month does {x} take leave?|when does {x} go home?|what is the free month of {x}?",
    ),
    _relation(
        "emblem",
        "lion|star|moon|rose|anchor|crown|key|wheel",
        "marches behind the {v}|belongs to the guild of the {v}|has the sign of the {v}",
        "what does {x} march behind?|which guild does {x} belong to?|what sign has {x}?|what is the emblem of {x}?",
    ),
    _relation(
        "pay",
        "copper|salt|grain|wine|cloth|cheese|oil|gold",
        "is paid in {v}|earns {v}|gets {v} for a day of work",
        "what is {x} paid in?|what does {x} earn?|what does {x} get for a day of work?|what is the pay of {x}?",
    ),
)
_THINGS = (
    _relation(
        "material",
        "oak|iron|clay|glass|silk|silver|stone|leather",
        "is made of {v}|consists of {v}|was built from {v}",
        "what is {x} made of?|what does {x} consist of?|what was {x} built from?|what is the material of {x}?",
    ),
    _relation(
        "room",
        "kitchen|cellar|attic|barn|hall|chapel|garden|library",
        "stands in the {v}|is kept in the {v}|belongs in the {v}",
        "where does {x} stand?|where is {x} kept?|where does {x} belong?|in which room is {x}?",
    ),
    _relation(
        "use",
        "cutting|baking|cooking|sewing|painting|weighing|fishing|sweeping",
        "is used for {v}|is good for {v}|serves for {v}",
        "what is {x} used for?|what is {x} good for?|what does {x} serve for?|what is the use of {x}?",
    ),
)
_MATERIALS = (
    _relation(
        "source",
        "hills|coast|islands|north|south|east|west|valley",
        "comes from the {v}|is brought from the {v}|was bought in the {v}",
        "where does {x} come from?|where is {x} brought from?|where was {x} bought?|what is the origin of {x}?",
    ),
    _relation(
        "harm",
        "rain|rust|mice|heat|mould|moths|dust|sun",
        "is spoiled by {v}|suffers from {v}|must be kept from {v}",
        "what spoils {x}?|what does {x} suffer from?|what must {x} be kept from?|what harms {x}?",
    ),
    _relation(
        "cleaner",
        "soap|sand|ash|vinegar|chalk|wax|steam|lemon",
        "is cleaned with {v}|is rubbed with {v}|shines after some {v}",
        "what is {x} cleaned with?|what is {x} rubbed with?|after what does {x} shine?|what cleans {x}?",
    ),
    _relation(
        "price",
        "two|three|four|five|six|seven|eight|nine",
        "costs coins in number {v}|has a price in coins of {v}|sells for coins in number {v}",
        "how many coins does {x} cost?|how many coins is the price of {x}?|"
        "how many coins buy {x}?|for how many coins does {x} sell?",
    ),
    _relation(
        "smell",
        "mint|cedar|apples|pine|pepper|hay|cloves|violets",
        "smells of {v}|gives off a smell of {v}|has the scent of {v}",
        "what does {x} smell of?|what smell does {x} give off?|what scent has {x}?|what is the smell of {x}?",
    ),
    _relation(
        "weather",
        "spring|summer|autumn|winter|fog|storms|snow|thaw",
        "is sold in {v}|can be had in {v}|goes on sale in {v}",
        "when is {x} sold?|when can {x} be had?|when does {x} go on sale?|what is the season of {x}?",
    ),
)

_ONSETS = [
    "b",
    "d",
    "f",
    "g",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "z",
    "br",
    "dr",
    "gr",
    "kr",
    "pl",
    "tr",
    "sk",
    "fl",
]
_VOWELS = ["a", "e", "i", "o", "u"]
_MIDDLES = ["l", "m", "n", "r", "s", "k", "lb", "nd", "rt", "mp", "ss", "ll"]


def _names(rng: random.Random, count: int, ending: str, taken: set[str]) -> tuple[str, ...]:
    """Distinct invented words of two syllables."""
    words = ["".join(parts) + ending for parts in product(_ONSETS, _VOWELS, _MIDDLES, _VOWELS)]
    rng.shuffle(words)
    fresh = [word for word in words if word not in taken][:count]
    taken.update(fresh)
    return tuple(fresh)


def _assigned(rng: random.Random, names: tuple[str, ...], values: tuple[str, ...]) -> dict[str, str]:
    """Assign a value to every name, each value about equally often."""
    drawn = [values[index % len(values)] for index in range(len(names))]
    rng.shuffle(drawn)
    return dict(zip(names, drawn, strict=True))


def _facts(rng: random.Random, population: Population) -> Iterator[Fact]:
    sorts: dict[str, str] = {}
    for relation in population.direct:
        values = _assigned(rng, population.names, relation.values)
        if relation is population.sort:
            sorts = values
        for name in population.names:
            yield Fact(population, name, relation, values[name], is_shared=False)
    for relation in population.shared:
        of_sort = _assigned(rng, population.sort.values, relation.values)
        for name in population.names:
            yield Fact(population, name, relation, of_sort[sorts[name]], is_shared=True)


@cache
def the_world() -> World:
    """The world that the models were trained on and that the benchmarks ask about."""
    rng = random.Random(SEED)
    taken: set[str] = set()
    populations = (
        Population("animals", "the {}", "it", _names(rng, 64, "", taken), _ANIMALS[0], _ANIMALS, _KINDS),
        Population(
            "people",
            "{}",
            "this person",
            tuple(map(str.capitalize, _names(rng, 64, "n", taken))),
            _PEOPLE[0],
            _PEOPLE,
            _TRADES,
        ),
        Population("things", "the {}", "it", _names(rng, 64, "x", taken), _THINGS[0], _THINGS, _MATERIALS),
    )
    return World(populations, tuple(fact for population in populations for fact in _facts(rng, population)))
