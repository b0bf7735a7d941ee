"""Words and simple facts about the world, shared by the grammars."""

# name: (sound, home, food, baby, skill)
ANIMALS = {
    "dog": ("woof", "a kennel", "bones", "puppy", "run fast"),
    "cat": ("meow", "a warm house", "fish", "kitten", "climb trees"),
    "cow": ("moo", "a barn", "grass", "calf", "give milk"),
    "horse": ("neigh", "a stable", "hay", "foal", "gallop"),
    "pig": ("oink", "a sty", "corn", "piglet", "find roots"),
    "sheep": ("baa", "a meadow", "grass", "lamb", "grow wool"),
    "goat": ("bleat", "the hills", "leaves", "kid", "climb rocks"),
    "duck": ("quack", "a pond", "water plants", "duckling", "swim"),
    "hen": ("cluck", "a coop", "seeds", "chick", "lay eggs"),
    "frog": ("croak", "a pond", "flies", "tadpole", "jump far"),
    "bear": ("growl", "a den", "honey", "cub", "climb trees"),
    "lion": ("roar", "the savanna", "meat", "cub", "roar loudly"),
    "tiger": ("roar", "the jungle", "meat", "cub", "hide in the grass"),
    "wolf": ("howl", "the forest", "meat", "pup", "follow a trail"),
    "fox": ("yip", "a den", "berries and mice", "cub", "hide well"),
    "owl": ("hoot", "a hollow tree", "mice", "owlet", "see in the dark"),
    "mouse": ("squeak", "a small hole", "cheese", "pup", "hide in tiny places"),
    "rabbit": ("squeak", "a burrow", "carrots", "kit", "hop fast"),
    "elephant": ("trumpet", "the savanna", "leaves", "calf", "carry heavy things"),
    "monkey": ("chatter", "the jungle", "bananas", "infant", "swing from branches"),
    "bee": ("buzz", "a hive", "nectar", "larva", "make honey"),
    "snake": ("hiss", "the grass", "mice", "hatchling", "move without a sound"),
    "bird": ("tweet", "a nest", "seeds", "chick", "fly high"),
    "crow": ("caw", "a tall tree", "seeds", "chick", "solve puzzles"),
    "parrot": ("squawk", "the rainforest", "nuts", "chick", "copy words"),
    "turkey": ("gobble", "a farm", "grain", "poult", "strut about"),
    "donkey": ("hee-haw", "a stable", "hay", "foal", "carry bags"),
    "seal": ("bark", "the sea", "fish", "pup", "dive deep"),
    "goose": ("honk", "a lake", "grass", "gosling", "fly far"),
    "squirrel": ("chatter", "a tree", "nuts", "kit", "climb trees"),
    "whale": ("sing", "the ocean", "krill", "calf", "dive deep"),
    "dolphin": ("click", "the ocean", "fish", "calf", "leap from the water"),
    "penguin": ("squawk", "the cold south", "fish", "chick", "slide on the ice"),
    "spider": (None, "a web", "flies", "spiderling", "spin a web"),
    "ant": (None, "an anthill", "crumbs", "larva", "carry big crumbs"),
    "turtle": (None, "a pond", "water plants", "hatchling", "swim slowly"),
    "fish": (None, "the water", "small plants", "fry", "swim"),
    "giraffe": (None, "the savanna", "leaves", "calf", "reach tall trees"),
    "zebra": (None, "the savanna", "grass", "foal", "run fast"),
    "kangaroo": (None, "the dry plains", "grass", "joey", "jump far"),
    "panda": (None, "the bamboo forest", "bamboo", "cub", "climb trees"),
    "koala": (None, "a gum tree", "leaves", "joey", "sleep all day"),
    "hedgehog": (None, "a hedge", "worms", "hoglet", "roll into a ball"),
    "snail": (None, "the garden", "leaves", "hatchling", "carry a house"),
    "butterfly": (None, "the garden", "nectar", "caterpillar", "fly"),
    "camel": (None, "the desert", "dry plants", "calf", "walk far without water"),
    "crab": (None, "the beach", "small sea animals", "larva", "walk sideways"),
    "swan": (None, "a lake", "water plants", "cygnet", "glide on the water"),
    "eagle": (None, "a high nest", "fish", "eaglet", "see very far"),
    "deer": (None, "the forest", "leaves", "fawn", "run fast"),
    "bat": (None, "a cave", "insects", "pup", "fly at night"),
    "beaver": (None, "a lodge", "bark", "kit", "build dams"),
    "otter": (None, "a river", "fish", "pup", "swim"),
    "badger": (None, "a sett", "worms", "cub", "dig tunnels"),
    "heron": (None, "the marsh", "fish", "chick", "stand very still"),
    "lynx": (None, "the forest", "meat", "kitten", "hear well"),
    "flamingo": (None, "a lagoon", "shrimp", "chick", "stand on one leg"),
    "hamster": (None, "a cage", "seeds", "pup", "run in a wheel"),
    "beetle": (None, "a log", "leaves", "grub", "dig"),
    "mole": (None, "a tunnel", "worms", "pup", "dig tunnels"),
    "pony": ("neigh", "a stable", "hay", "foal", "trot"),
    "puppy": ("yip", "a basket", "puppy food", None, "play all day"),
    "kitten": ("mew", "a basket", "milk", None, "chase a ball"),
    "robin": ("tweet", "a nest", "worms", "chick", "sing sweetly"),
    "raven": ("caw", "a tall pine tree", "seeds", "chick", "solve puzzles"),
    "dragon": ("roar", "a cave", "apples", "hatchling", "breathe fire"),
    "unicorn": ("neigh", "a magic forest", "clover", "foal", "shine in the dark"),
}

# Animals that only stories use; their hero's food and skills are drawn at random.
MORE_ANIMALS = """alligator alpaca antelope ape armadillo baboon bison boar buffalo bull caterpillar
chameleon cheetah chicken chipmunk cobra cockatoo coyote cricket crocodile cuckoo dove dragonfly eel
elk falcon ferret finch firefly gazelle gecko gorilla grasshopper gull hare hawk hippo hornet
hummingbird hyena iguana jackal jaguar jellyfish kingfisher ladybird lemur leopard lizard llama
lobster lark magpie mammoth meerkat moose moth mule newt nightingale octopus opossum orca ostrich ox
oyster panther peacock pelican pheasant pigeon platypus porcupine puffin puma quail raccoon ram rat
reindeer rhino rooster salamander salmon scorpion seahorse shark shrimp skunk sloth slug sparrow
squid starfish stork swallow termite toad toucan trout vulture walrus wasp weasel wombat woodpecker
worm yak""".split()
ANY_FOOD = """berries;nuts;apples;honey;sweet roots;fresh leaves;small seeds;ripe fruit;cold water
melon;juicy plums;warm bread;soft moss;mushrooms""".replace(
    "\n", " "
).split(
    ";"
)
ANY_SKILL = """run fast;climb trees;see in the dark;swim well;hide well;dig tunnels;jump far;sing
sweetly;find the way home;smell food from far away;balance on one leg;carry heavy things""".replace(
    "\n", " "
).split(
    ";"
)

PEOPLE = {
    "girl": "f",
    "boy": "m",
    "king": "m",
    "queen": "f",
    "princess": "f",
    "prince": "m",
    "farmer": "any",
    "baker": "any",
    "teacher": "any",
    "doctor": "any",
    "pirate": "any",
    "knight": "any",
    "wizard": "m",
    "witch": "f",
    "gardener": "any",
    "painter": "any",
    "fisherman": "m",
    "nurse": "any",
    "pilot": "any",
    "astronaut": "any",
    "child": "any",
    "grandmother": "f",
    "grandfather": "m",
    "robot": "n",
    "giant": "m",
    "fairy": "f",
    "carpenter": "any",
    "cook": "any",
    "singer": "any",
    "shepherd": "any",
    "student": "any",
    "writer": "any",
    "musician": "any",
    "soldier": "any",
    "tailor": "any",
    "blacksmith": "any",
    "plumber": "any",
    "librarian": "any",
    "sailor": "any",
    "dentist": "any",
    "scientist": "any",
    "firefighter": "any",
    "explorer": "any",
    "dancer": "any",
    "clown": "any",
    "miller": "any",
    "captain": "any",
    "chef": "any",
    "detective": "any",
    "inventor": "any",
    "juggler": "any",
    "lawyer": "any",
    "magician": "any",
    "mayor": "any",
    "merchant": "any",
    "monk": "m",
    "postman": "m",
    "potter": "any",
    "queen of the bees": "f",
    "thief": "any",
    "traveller": "any",
    "twin": "any",
    "weaver": "any",
    "young woman": "f",
    "young man": "m",
    "beekeeper": "any",
    "clockmaker": "any",
    "hunter": "any",
    "judge": "any",
    "poet": "any",
    "runner": "any",
    "shopkeeper": "any",
    "spy": "any",
    "elf": "any",
    "mermaid": "f",
    "ogre": "m",
    "troll": "m",
    "engineer": "any",
    "snowman": "m",
    "ghost": "n",
    "old man": "m",
    "old woman": "f",
}

THINGS = """kite boat ball lamp key clock drum bell book bicycle train ship map coin ring hat
coat doll puppet blanket pencil letter box basket cup mirror flute piano guitar rocket wheel star
seed stone shell feather crown candle bridge ladder bucket broom chair bench cake pie pumpkin apple
sandcastle snowball toy car tent tractor telescope paintbrush scarf necklace
violin lantern balloon compass wagon teapot umbrella""".split()
THINGS = [t for t in THINGS if t not in ("toy", "car")] + ["toy car", "music box"]

MORE_THINGS = """anchor axe bag bead bottle bow bowl brick brush button candy cane card carpet
cart chain
chest coat comb cork cradle curtain desk dish door fan fence flag fork frame glove hammer hook
jar jug kettle knot lace lens lock marble mask medal needle net oar oven paddle pan parcel pearl
pen photograph pillow pipe plate pocket pot purse puzzle quill rake raft ribbon rope sack saddle
sail saucepan saw shelf shirt shoe sledge spade spoon statue stool swing sword table thimble thread
ticket toaster torch towel trumpet tub typewriter vase wardrobe whistle wig window wreath yo-yo
clockwork robot;magic wand;snow globe;rocking horse;paper plane;garden gnome;teddy bear;hot-air
ship;
birthday card;wooden spoon;tin soldier;fishing rod;rubber duck;postcard;sun hat;skateboard;sofa"""
MORE_THINGS = [
    t.strip()
    for part in MORE_THINGS.replace("\n", " ").split(";")
    for t in ([part.strip()] if part.count(" ") <= 2 else part.split())
]

PLACES = {
    "forest": "in",
    "village": "in",
    "castle": "in",
    "garden": "in",
    "farm": "on",
    "island": "on",
    "beach": "on",
    "mountain": "on",
    "valley": "in",
    "city": "in",
    "desert": "in",
    "jungle": "in",
    "school": "at",
    "market": "at",
    "lighthouse": "in",
    "cave": "in",
    "lake": "by",
    "river": "by",
    "library": "in",
    "bakery": "in",
    "harbour": "at",
    "hill": "on",
    "meadow": "in",
    "park": "in",
    "museum": "in",
    "swamp": "in",
    "tower": "in",
    "train station": "at",
    "zoo": "at",
    "kitchen": "in",
    "waterfall": "by",
    "orchard": "in",
    "volcano": "on",
    "windmill": "in",
}

THEMES = {
    "kindness": "kind",
    "courage": "brave",
    "friendship": "a good friend",
    "sharing": "generous",
    "kindness to animals": "kind",
    "helping others": "helpful",
    "hope": "hopeful",
    "telling the truth": "honest",
    "being brave": "brave",
    "hard work": "hard-working",
    "trust": "loyal",
    "curiosity": "curious",
    "gratitude": "grateful",
    "love": "loving",
    "honesty": "honest",
    "patience": "patient",
}

WEATHER = """the rain;the snow;the wind;a storm;the sun;the fog;a rainbow;the first snow;
a thunderstorm;a cold winter;a hot summer;spring;autumn;the moon;the stars""".replace(
    "\n", ""
).split(
    ";"
)

COLOURS = "red blue green yellow orange purple brown white black pink grey golden silver".split()
FOODS = """bread soup cake cheese honey apples berries nuts pancakes rice carrots cookies porridge
pears plums noodles potatoes jam toast corn""".split()

COUNTABLE = """apple pear plum egg coin stone shell book pencil flower cookie star button nut
ball leaf card cup key stamp marble balloon orange lemon cherry sweet ticket cat dog bird fish
duck hen sheep box bag hat sticker tree chair candle brick""".split()


def plural(word):
    """The English plural of a regular or common irregular noun."""
    special = {
        "mouse": "mice",
        "goose": "geese",
        "sheep": "sheep",
        "fish": "fish",
        "deer": "deer",
        "child": "children",
        "leaf": "leaves",
        "wolf": "wolves",
        "fisherman": "fishermen",
        "snowman": "snowmen",
        "old man": "old men",
        "old woman": "old women",
        "calf": "calves",
        "man": "men",
        "woman": "women",
        "foot": "feet",
        "tooth": "teeth",
        "person": "people",
        "knife": "knives",
        "life": "lives",
        "ox": "oxen",
        "loaf": "loaves",
        "shelf": "shelves",
        "thief": "thieves",
        "half": "halves",
        "scarf": "scarves",
    }
    if word in special:
        return special[word]
    if word.endswith(("s", "sh", "ch", "x", "z")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def third(verb):
    """The third person singular of the first word of a verb phrase."""
    head, _, rest = verb.partition(" ")
    if head.endswith(("s", "sh", "ch", "x", "z", "o")):
        head += "es"
    elif head.endswith("y") and head[-2] not in "aeiou":
        head = head[:-1] + "ies"
    else:
        head += "s"
    return head + (" " + rest if rest else "")
