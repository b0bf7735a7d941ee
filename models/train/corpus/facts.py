"""Tables of plain facts for the question-and-answer grammars."""


def table(text):
    """Parses 'a: b; c: d' into a list of pairs."""
    pairs = (item.split(":") for item in " ".join(text.split()).split(";") if item.strip())
    return [(k.strip(), v.strip()) for k, v in pairs]


CAPITALS = table(
    """France: Paris; Germany: Berlin; Italy: Rome; Spain: Madrid; Portugal: Lisbon;
England: London; Ireland: Dublin; Scotland: Edinburgh; Norway: Oslo; Sweden: Stockholm;
Denmark: Copenhagen; Finland: Helsinki; Poland: Warsaw; Austria: Vienna; Hungary: Budapest;
Greece: Athens; Turkey: Ankara; Egypt: Cairo; Kenya: Nairobi; Nigeria: Abuja; Morocco: Rabat;
Japan: Tokyo; China: Beijing; India: New Delhi; Thailand: Bangkok; Vietnam: Hanoi;
South Korea: Seoul; Russia: Moscow; Ukraine: Kyiv; Belgium: Brussels; the Netherlands: Amsterdam;
Canada: Ottawa; Mexico: Mexico City; Cuba: Havana; Brazil: Brasilia; Argentina: Buenos Aires;
Chile: Santiago; Peru: Lima; Colombia: Bogota; Australia: Canberra; New Zealand: Wellington;
Iceland: Reykjavik; Switzerland: Bern; Romania: Bucharest; Bulgaria: Sofia; Croatia: Zagreb;
Czechia: Prague; Indonesia: Jakarta; the Philippines: Manila; Iran: Tehran; Iraq: Baghdad;
Saudi Arabia: Riyadh; Pakistan: Islamabad; Nepal: Kathmandu;
the United States: Washington; the United Kingdom: London; Ghana: Accra; Senegal: Dakar;
Ethiopia: Addis Ababa; Tunisia: Tunis; Algeria: Algiers; Uruguay: Montevideo; Ecuador: Quito"""
)

OPPOSITES = table(
    """hot: cold; big: small; tall: short; fast: slow; happy: sad; up: down; left: right;
day: night; light: dark; old: young; new: old; good: bad; rich: poor; hard: soft; wet: dry;
clean: dirty; full: empty; open: closed; early: late; loud: quiet; strong: weak; thick: thin;
high: low; near: far; heavy: light; sweet: sour; easy: difficult; first: last; long: short;
wide: narrow; deep: shallow; brave: afraid; kind: cruel; true: false; yes: no; on: off; in: out;
above: below; before: after; always: never; love: hate; win: lose; buy: sell; give: take;
push: pull; start: stop; begin: end; come: go; laugh: cry; remember: forget; ask: answer;
inside: outside; front: back; top: bottom; black: white; rough: smooth; sharp: blunt;
summer: winter; morning: evening; friend: enemy; war: peace; north: south; east: west;
beautiful: ugly; cheap: expensive; safe: dangerous; noisy: quiet; awake: asleep; right: wrong;
warm: cool; rise: fall; arrive: leave; find: lose; more: less; many: few; same: different"""
)

SYNONYMS = table(
    """big: large; small: little; happy: glad; sad: unhappy; fast: quick; begin: start;
end: finish; pretty: beautiful; smart: clever; angry: cross; afraid: scared; quiet: silent;
easy: simple; hard: difficult; rich: wealthy; ill: sick; near: close; speak: talk; shout: yell;
look: see; gift: present; stone: rock; road: street; forest: wood; boat: ship; house: home;
jump: leap; brave: courageous; kind: nice; funny: amusing; tired: sleepy; strange: odd"""
)

COLOURS = table(
    """the sky: blue; grass: green; snow: white; a banana: yellow; a lemon: yellow;
a tomato: red; a strawberry: red; coal: black; an orange: orange; a carrot: orange; milk: white;
the sun: yellow; a leaf: green; a frog: green; a polar bear: white; a crow: black; chocolate: brown;
blood: red; a cherry: red; a plum: purple; an elephant: grey; a flamingo: pink; a pig: pink;
a cucumber: green; a pumpkin: orange; a raven: black; butter: yellow; a fire engine: red;
wood: brown; a cloud: white; the sea: blue; a swan: white; rice: white; sand: yellow; coffee: brown;
a lime: green; honey: golden; a rose: red; night: black; spinach: green; a bear: brown"""
)

HABIT = table(
    """a doctor: helps people who are ill; a teacher: teaches children at school;
a baker: bakes bread and cakes; a farmer: grows food and keeps animals;
a pilot: flies an aeroplane; a nurse: cares for people who are ill;
a firefighter: puts out fires; a cook: makes meals; a painter: paints pictures or walls;
a carpenter: makes things out of wood; a gardener: takes care of plants;
a writer: writes books and stories; a singer: sings songs; a driver: drives a car or a bus;
a fisherman: catches fish; a tailor: makes and mends clothes; a judge: decides in a court;
an astronaut: travels into space; a scientist: studies how the world works;
a programmer: writes programs for computers; a musician: plays music; a vet: treats sick animals;
a police officer: keeps people safe; a builder: builds houses; a waiter: brings food to the table;
a butcher: sells meat; a miner: digs for coal or metal; a postman: brings letters and parcels;
an actor: plays roles in plays and films; a shepherd: looks after sheep;
an engineer: designs machines and bridges; a hairdresser: cuts hair;
a plumber: repairs water pipes; a librarian: takes care of books; a dentist: looks after teeth;
a sailor: works on a ship"""
)

USES = table(
    """a pen: write; a knife: cut things; scissors: cut paper; an umbrella: stay dry in the rain;
a clock: tell the time; a spoon: eat soup; a broom: sweep the floor; a key: open a lock;
a hammer: hit nails; a bed: sleep; a chair: sit; a car: travel on roads; a boat: travel on water;
a telephone: talk to people far away; a lamp: give light; an oven: bake food; a cup: drink;
a comb: tidy hair; soap: wash; a towel: dry things; a book: read and learn; a map: find the way;
a thermometer: measure temperature; a ruler: measure length; a camera: take pictures;
a bag: carry things; a ladder: climb up; a saw: cut wood; a needle: sew; a kettle: boil water;
a fridge: keep food cold; a computer: work with information; a bridge: cross a river;
a telescope: see faraway stars; glasses: see better; a coat: keep warm; a brush: paint or clean"""
)

BODY = table(
    """eyes: see; ears: hear; nose: smell; tongue: taste; hands: hold things; legs: walk and run;
teeth: bite and chew; heart: pump blood; lungs: breathe; brain: think; skin: feel;
stomach: digest food; feet: stand and walk; fingers: touch and hold things; bones: hold up the
body"""
)

DEFINITIONS = table(
    """a river: a long stream of water that flows to the sea;
a mountain: a very high part of the land; a desert: a dry place where little rain falls;
an island: land with water all around it; a volcano: a mountain that can throw out hot rock;
a forest: a large place with many trees; an ocean: a very large body of salt water;
rain: water that falls from the clouds; snow: frozen water that falls in soft white flakes;
ice: frozen water; wind: moving air; thunder: the loud sound that comes with lightning;
a rainbow: a bow of colours in the sky when sun and rain meet; a star: a huge ball of hot gas
that shines;
the moon: the round body that travels around the Earth; the sun: the star that gives us light
and warmth;
a planet: a large round body that travels around a star; gravity: the force that pulls things down;
a book: pages with words or pictures bound together; a library: a place where people can borrow
books;
a school: a place where children learn; a hospital: a place where ill people are treated;
a museum: a place that shows old or beautiful things; a market: a place where people buy and
sell things;
a bakery: a shop that makes and sells bread; a farm: a place where food is grown and animals are
kept;
a computer: a machine that works with information; a program: a list of instructions for a computer;
the internet: a network that joins computers all over the world; a robot: a machine that can do
work by itself;
a server: a computer or program that answers requests from others; a network: a group of
connected computers;
a poem: a short piece of writing that plays with words and sounds; music: sounds put together in
a pleasing way;
a friend: someone you like and trust; a family: a group of people who belong together;
kindness: being friendly and helpful to others; courage: doing something hard although you are
afraid;
a secret: something that only a few people know; a dream: pictures and stories in your mind
while you sleep;
a birthday: the day on which someone was born; a holiday: a time when you do not work or go to
school;
breakfast: the first meal of the day; lunch: the meal in the middle of the day;
dinner: the main meal of the day; bread: a food made from flour and water; cheese: a food made
from milk;
honey: a sweet food made by bees; milk: a white drink that comes from cows; salt: white grains
that make food taste stronger;
sugar: something sweet that comes from plants; an egg: a round thing laid by birds, from which
chicks come;
a seed: the small part of a plant from which a new plant grows; a tree: a tall plant with a
trunk of wood;
a flower: the colourful part of a plant; fruit: the part of a plant that holds its seeds;
a vegetable: a plant or part of a plant that people eat; an insect: a small animal with six legs;
a mammal: an animal that feeds its babies with milk; a bird: an animal with feathers and wings;
a fish: an animal that lives in water and breathes with gills; a reptile: an animal with dry,
scaly skin;
a circle: a round shape; a triangle: a shape with three sides; a square: a shape with four equal
sides;
a number: a word or sign that says how many; a week: seven days; a year: twelve months; an hour:
sixty minutes;
a minute: sixty seconds; a bicycle: something with two wheels that you ride; a train: a row of
carriages that runs on rails;
an aeroplane: a machine with wings that flies; a ship: a large boat; a bridge: something built
to cross a river or a road;
a map: a drawing that shows where places are; money: what people use to buy things; a letter: a
written message;
a language model: a program that predicts the next word; a token: a small piece of text that a
language model reads;
water: a clear liquid that all living things need; air: the gas all around us that we breathe;
fire: the hot, bright flames of something burning; a cloud: many tiny drops of water in the sky;
a garden: a place where people grow plants; a game: something you play for fun; a story: a tale
about things that happened"""
)

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = """January February March April May June July August September October November
December""".split()
MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
SEASONS = ["spring", "summer", "autumn", "winter"]
SEASON_NOTES = {
    "spring": ["flowers begin to bloom", "the days grow longer", "birds build their nests"],
    "summer": ["the days are long and warm", "people swim in the sea", "the sun shines a lot"],
    "autumn": ["leaves fall from the trees", "apples are ripe", "the days grow shorter"],
    "winter": ["it is cold", "snow may fall", "the nights are long"],
}
CATEGORIES = {
    "fruit": (
        "apple banana pear plum cherry orange lemon grape peach strawberry melon mango".split()
    ),
    "vegetable": "carrot potato onion cabbage spinach cucumber leek turnip radish pea bean".split(),
    "animal": "dog cat horse cow lion tiger bear rabbit fox elephant mouse sheep".split(),
    "bird": "owl eagle robin crow duck swan parrot penguin goose sparrow".split(),
    "colour": "red blue green yellow orange purple brown white black pink".split(),
    "tool": "hammer saw spade drill screwdriver rake".split(),
    "musical instrument": "piano flute drum guitar trumpet harp".split(),
    "vehicle": "car bus train boat bicycle lorry".split(),
    "insect": "bee ant fly butterfly wasp moth".split(),
    "piece of clothing": "coat hat scarf shirt sock skirt jumper".split(),
    "shape": "circle square triangle rectangle oval star".split(),
    "planet": "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split(),
    "country": "France Spain Italy Japan Brazil Egypt Canada India Norway Kenya".split(),
    "language": "English French Spanish German Italian Japanese Arabic Hindi".split(),
    "drink": "water milk tea coffee juice lemonade".split(),
    "sport": "football tennis swimming running basketball hockey".split(),
}
UNCOUNTED = {"fruit": "fruits", "piece of clothing": "pieces of clothing", "country": "countries"}
SIZES = """ant bee mouse frog rabbit cat fox dog sheep pig lion horse giraffe elephant
whale""".split()
SPEEDS = "snail turtle duck pig dog horse train aeroplane rocket".split()
PAST = table(
    """go: went; eat: ate; see: saw; run: ran; sing: sang; take: took; give: gave; write: wrote;
read: read; come: came; buy: bought; think: thought; make: made; swim: swam; fly: flew; sleep:
slept;
drink: drank; find: found; speak: spoke; know: knew; grow: grew; begin: began; break: broke;
win: won;
walk: walked; play: played; jump: jumped; help: helped; laugh: laughed; cry: cried; look: looked;
bring: brought; catch: caught; teach: taught; tell: told; sit: sat; stand: stood; wear: wore"""
)
MISC = table(
    """How many legs does a spider have?: A spider has eight legs.;
How many legs does a dog have?: A dog has four legs.; How many legs does an insect have?: An
insect has six legs.;
How many legs does a bird have?: A bird has two legs.; How many legs does a cat have?: A cat has
four legs.;
How many days are in a week?: There are seven days in a week.;
How many months are in a year?: There are twelve months in a year.;
How many hours are in a day?: There are 24 hours in a day.;
How many minutes are in an hour?: There are 60 minutes in an hour.;
How many seconds are in a minute?: There are 60 seconds in a minute.;
How many days are in a year?: There are 365 days in a year, and 366 in a leap year.;
How many seasons are there?: There are four seasons, namely spring, summer, autumn and winter.;
How many fingers do people have?: Most people have ten fingers.;
How many letters are in the alphabet?: There are 26 letters in the English alphabet.;
How many planets are there?: There are eight planets in our solar system.;
How many continents are there?: There are seven continents.;
How many sides does a triangle have?: A triangle has three sides.;
How many sides does a square have?: A square has four sides.;
How many wheels does a car have?: A car has four wheels.;
How many wheels does a bicycle have?: A bicycle has two wheels.;
Where does the sun rise?: The sun rises in the east.; Where does the sun set?: The sun sets in
the west.;
What do bees make?: Bees make honey.; What do cows give us?: Cows give us milk.;
What is the largest animal?: The blue whale is the largest animal.;
What is the tallest animal?: The giraffe is the tallest animal.;
What is the fastest land animal?: The cheetah is the fastest land animal.;
What is the largest ocean?: The Pacific is the largest ocean.;
What is the largest planet?: Jupiter is the largest planet in our solar system.;
What planet do we live on?: We live on the planet Earth.;
Why is the sky blue?: The sky is blue because air scatters blue light more than red light.;
Why do leaves fall?: Many trees drop their leaves in autumn to save water in winter.;
Why do we sleep?: We sleep so that the body and the brain can rest.;
Why does ice melt?: Ice melts because it becomes too warm to stay frozen.;
Why do birds sing?: Birds sing to find a mate and to keep others away.;
Where do fish live?: Fish live in water.; When is it dark?: It is dark at night.;
What is water made of?: Water is made of hydrogen and oxygen.;
At what temperature does water freeze?: Water freezes at 0 degrees Celsius.;
At what temperature does water boil?: Water boils at 100 degrees Celsius.;
What colours make green?: Blue and yellow make green.; What colours make orange?: Red and yellow
make orange.;
What colours make purple?: Red and blue make purple.; What comes after night?: After night comes
the day.;
What do plants need to grow?: Plants need light, water and air to grow.;
Can fish breathe under water?: Yes, fish breathe under water with their gills.;
Can penguins fly?: No, penguins cannot fly, but they swim very well.;
Is the sun a star?: Yes, the sun is a star.; Is a whale a fish?: No, a whale is a mammal.;
Is the Earth flat?: No, the Earth is round.; Do snakes have legs?: No, snakes do not have legs.;
Is ice cold?: Yes, ice is cold.; Is fire hot?: Yes, fire is hot.; Do birds have wings?: Yes,
birds have wings."""
)

KINDS = {
    "bird": "duck hen owl bird crow parrot turkey goose penguin swan eagle robin raven".split(),
    "insect": "bee ant butterfly".split(),
    "reptile": "snake turtle".split(),
    "fish": ["fish"],
}
HELLO = table(
    """French: bonjour; Spanish: hola; German: hallo; Italian: ciao; Portuguese: ola;
Japanese: konnichiwa; Dutch: hallo; Swedish: hej; Polish: witaj; Hawaiian: aloha"""
)
RHYMES = table(
    """cat: hat; dog: fog; sun: fun; moon: spoon; star: car; tree: bee; house: mouse;
night: light; day: play; rain: train; snow: go; king: ring; boat: coat; cake: lake; bear: chair;
fish: dish; ball: tall; book: look; bed: red; hand: sand; fox: box; wing: sing"""
)
