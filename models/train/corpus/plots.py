"""Story plots as templates: openings and plots, which are lists of sentences.

Slots: {name} the hero, a {adj} {kind} with pronouns {he} {him} {his} {self}; {fname} the
friend, a {fadj} {friend} with {fhe} {fhim} {fhis}; {at} the {padj} {place}; a {tadj} {thing};
{colour}, {sky}, {time}, {food}, {skill}, {home}. HELD_* are the patterns training never sees.
"""

OPENINGS = """once upon a time, there was a {adj} {kind} named {name}. {name} lived {at} a \
{padj} {place}.
once upon a time, a {adj} {kind} [named|called] {name} lived [in {home}|{at} a {padj} {place}].
once there was a {kind} [named|called] {name} who lived {at} the {place}.
{name} was a {adj} {kind} who lived [in {home}|{at} a {padj} {place}].
long ago, {at} a {padj} {place}, there lived a {adj} {kind} [named|called] {name}.
{at} a {padj} {place} lived a {kind} whose name was {name}. [everyone liked {him}|{name} was \
{adj}|{he} liked {food} very much].
there once was a {adj} {kind} who loved [the {place}|{food}|to play|to walk|to sing]. {his} name \
was {name}.
one {sky} {time}, a {adj} {kind} named {name} [went for a walk|woke up early|looked out at the \
sky|set out for the {place}].
a {adj} {kind} named {name} had [a dream|a plan|a secret|a big question].
every {time}, {name} the {kind} [walked to the {place}|sat {at} the {place}|looked at the {place}].
it was a {sky} {time}. {name}, a {adj} {kind}, was {at} the {place}.
{name} the {kind} was [very|quite|a little] {adj}. {he} lived [near|not far from] a {place}.
in {home} near the {place} lived a {adj} {kind} [named|called] {name}.
this is the story of {name}, a {adj} {kind} who lived near a {place}.
my [grandmother|uncle|teacher|father] once told me about a {kind} named {name}. {he} lived {at} \
a {place}.""".split(
    "\n"
)

HELD_OPENINGS = """far beyond the hills, near a {padj} {place}, a {adj} {kind} named {name} was \
wide awake.
nobody {at} the {place} knew much about {name}, the {adj} {kind}.
if you had visited the {place} that year, you would have met a {kind} called {name}.""".split(
    "\n"
)

PLOTS = [
    [
        (
            "one {time}, {name} [saw|noticed|met] a {friend} named {fname} [near|by|close to] the"
            " {place}."
        ),
        (
            "{fname} was [crying|sad|very sad|sitting all alone], because {fhe} had [lost|dropped]"
            " {fhis} {thing}."
        ),
        (
            '"[do not cry|do not worry|please do not be sad]," said {name}. "I will help you [find'
            ' it|look for it|with it]."'
        ),
        (
            "[together they|the two of them|so they] looked [under the leaves|behind the"
            " stones|everywhere|in the tall grass] [for a long time|until the sun went down|all"
            " day]."
        ),
        (
            "[at last|finally|in the end], {name} found the {thing} [under a bush|behind a tree|in"
            " the mud|next to a rock]."
        ),
        (
            '{fname} [smiled|jumped with joy|was so happy] and [said "thank you" to {name}|thanked'
            " {name}|gave {name} a hug]."
        ),
    ],
    [
        (
            "[one day|one {time}], {name} wanted to [see the world|see what was behind the"
            " hills|visit the {place}|find a new home]."
        ),
        (
            "{he} [packed|took|put] some {food} [in a bag|in a small bag|in {his} bag] and walked"
            " [a long way|for three days|over the hills|all day]."
        ),
        (
            'on the way, {he} met a {friend} [named|called] {fname}. "where are you going?" asked'
            " {fname}."
        ),
        (
            '"I am going to [see the sea|find something new|look for an adventure|the other side of'
            ' the hill]," said {name}. "[come with me|please come along|you must join me]!"'
        ),
        (
            "[they walked together and shared the {food}|they sang songs and shared the {food}|the"
            " two walked on and told each other jokes]."
        ),
        (
            "when they [got there|came to the top|reached the end of the road], they saw [the wide"
            " blue sea|a valley full of flowers|a thousand stars|the most beautiful lake]."
        ),
    ],
    [
        "{name} was [afraid|scared] of [the dark|loud noises|deep water|the wind|high places].",
        (
            "[the others laughed at {him}|all the others told {him} to be brave|nobody knew about"
            " it|{he} never told anyone]."
        ),
        (
            "one [night|evening], a {friend} named {fname} [called|cried|shouted] for help [from"
            " the {place}|near the {place}]."
        ),
        (
            "{name} was [afraid|still afraid|scared], but {he} [ran to help|did not stop|took a"
            " deep breath and went|wanted to help]."
        ),
        (
            "{he} [found {fname}|saw {fname}] [in a hole|stuck under a branch|lost in the fog] and"
            " [pulled {fhim} out|led {fhim} home|brought {fhim} to safety]."
        ),
        (
            '"you [are|were] so brave," said {fname}. {name} [smiled|felt proud|was not afraid any'
            " more]."
        ),
    ],
    [
        "{name} [loved|liked] {food} [more than anything|very much|best of all].",
        (
            "one {time}, {he} found [a big pile of|a basket full of|a bag of|a plate of] {food}"
            " [near|by] the {place}."
        ),
        (
            '[just then|at that moment|soon after], a {adj} {friend} named {fname} came by. "I am'
            ' so hungry," said {fname}.'
        ),
        (
            "{name} [thought for a moment|looked at the {food}|wanted to keep it all]. [then|but"
            ' then] {he} said, "[let us share|there is enough for both of us|please take some]."'
        ),
        (
            "they sat [in the sun|under a tree|on the grass|side by side] and ate [together|until"
            " they were full|every bit of it]."
        ),
        (
            "[everything tastes better when you share it|nothing had ever tasted so good|it was the"
            " best meal {name} had ever had]."
        ),
    ],
    [
        (
            "one {sky} {time}, {name} [played|was playing] [near|by] the {place} and [lost {his}"
            " way|got lost|went too far from home]."
        ),
        (
            "{he} looked [left and right|all around|up and down], but {he} [did not know the way"
            " home|could not see {his} home|saw only trees]."
        ),
        (
            'then {he} [heard|saw] a {friend}. "my name is {fname}," said the {friend}. "are you'
            ' lost?"'
        ),
        '"yes," said {name}. "I [want to go home|miss my family|cannot find my home]."',
        (
            "{fname} knew [every path|the way|the whole {place}], so {fhe} [walked|went] with"
            " {name} [all the way|step by step|until they saw the house]."
        ),
        (
            "[when they arrived|at home], {name} [gave {fname} some {food}|shared {his} {food} with"
            " {fname}|asked {fname} to stay for supper]."
        ),
    ],
    [
        (
            "{name} [could|was able to] {skill} [better than anyone|very well], but {he} [thought"
            " it was nothing special|was too shy to show it|never told anyone]."
        ),
        (
            "one day, there was [a big storm|a flood|a fire|trouble] {at} the {place}. [everyone"
            " was afraid|nobody knew what to do|everyone ran about]."
        ),
        "a {fadj} {friend} named {fname} [was in danger|needed help|could not get home].",
        '"I can {skill}," said {name}. "[let me try|maybe I can help|I will do it]."',
        (
            "{name} [worked|tried] [very hard|with all {his} strength|again and again], and"
            " [soon|at last|before night] {fname} was safe."
        ),
        (
            "[from that day on|after that], everyone [was glad|was happy|was proud] that {name}"
            " could {skill}."
        ),
    ],
    [
        (
            "{name} wanted to [build|make] a {thing}. {he} had [never done it before|only a few"
            " tools|no idea how to start]."
        ),
        (
            "the first {thing} [broke|fell apart|was too small]. the second [one was too big|one"
            " broke, too|one was no good]."
        ),
        '"[I will never do it|this is too hard|I give up]," said {name} [sadly|and sat down].',
        (
            '"try [once more|again|one more time]," said {his} friend {fname}, a {fadj} {friend}.'
            ' "[I will help you|you learn each time|we can do it together]."'
        ),
        (
            "so {name} tried again, [slowly and with care|bit by bit|step by step]. this time, the"
            " {thing} was [perfect|just right|better than {he} had hoped]."
        ),
        "{he} [painted it {colour}|gave it to {fname}|put it {at} the {place} for all to see].",
    ],
    [
        (
            "there was [no rain|very little rain] that [year|summer], and the {place} was [dry|very"
            " dry|dry and brown]."
        ),
        "everyone was [thirsty|worried].",
        (
            "{name} [walked|went] [far and wide|up the mountain|for two days] to [look for|find]"
            " water."
        ),
        (
            "on the way, {he} [helped|was kind to] {fname}, an old {friend} who [could not walk"
            " well|was too tired to go on|had hurt {fhis} foot]."
        ),
        (
            '"because you are so kind, I will [show|tell] you [a secret|where to find water]," said'
            ' {fname}. "there is a spring [behind the big rock|under the old tree|on the other side'
            ' of the hill]."'
        ),
        (
            "{name} [ran|hurried] home and told everyone. soon [there was water for all|the {place}"
            " was green again|everyone could drink]."
        ),
    ],
    [
        (
            "{name} and {fname} the {friend} were [best friends|good friends|friends]. they"
            " [played|walked|sang] together every day."
        ),
        (
            'one {time}, they both [wanted|saw] the same {thing}. "it is mine!" said {name}. "no,'
            ' it is mine!" said {fname}.'
        ),
        (
            "they [pulled and pulled|shouted at each other], and the {thing} [broke|fell in the"
            " water|was lost]."
        ),
        (
            "{name} went home [alone|in tears|without a word]. {he} [missed|thought about] {fname}"
            " all [night|evening]."
        ),
        (
            'the next [day|morning], {name} said, "I am sorry. [a friend is worth more than a'
            ' {thing}|you are more important to me than a {thing}]."'
        ),
        (
            '"I am sorry, too," said {fname}. [they made a new {thing} together|then they laughed'
            " and played again|they shook hands and shared everything after that]."
        ),
    ],
    [
        (
            "[one day|one {sky} {time}], {name} [planted|put] a [tiny|small] seed [in the ground|in"
            " the earth] [near|by] the {place}."
        ),
        (
            '{he} gave it water every [day|morning], but nothing [happened|grew]. "[just wait|be'
            ' patient|wait a little]," said {fname}, {his} friend, a {fadj} {friend}.'
        ),
        "{name} waited [one week, and then another|for many days|all spring].",
        (
            "then, one {time}, a [small|tiny] green leaf [came out|looked out of the ground|was"
            " there]."
        ),
        "the leaf became a flower, and the flower was [{colour}|taller than {name}|lovely].",
        (
            "[everyone came to see it|{name} and {fname} sat beside it every {time}|{name} gave the"
            " first flower to {fname}]."
        ),
    ],
    [
        (
            "it was {name}'s birthday, but [nobody said a word about it|everyone seemed to be"
            " busy|nobody came]."
        ),
        (
            "{name} felt [sad|lonely|a little sad] and [went for a walk|walked] [to the"
            " {place}|around the {place}]."
        ),
        "{he} met {fname} the {friend}, but {fname} [hurried away|had no time|only said hello].",
        (
            "in the evening, {name} [went|walked] home. the house was dark. {he} [opened the"
            " door|went in]."
        ),
        (
            '"surprise!" [shouted|cried] [all {his} friends|everyone]. there was [a big cake|a cake'
            " with candles|music], and a {tadj} {thing} [as a present|from {fname}]."
        ),
        "it was the best birthday [of all|ever|{name} could think of].",
    ],
    [
        "{name} [worked|was working] {at} the {place} [every day|from morning to night].",
        (
            "one {sky} {time}, a {friend} named {fname} came [to the door|and asked for help|to"
            ' {him}]. "[I am cold and tired|I have no place to sleep|I have come a long way]," said'
            " {fname}."
        ),
        (
            "{name} [gave {fhim} warm {food} and a bed|let {fhim} in and made a fire|gave {fhim} a"
            " blanket and some {food}]."
        ),
        (
            "[the next morning|in the morning], {fname} was gone, but there was a {tadj} {thing} on"
            " the table."
        ),
        (
            '"[this is for your kind heart|thank you for helping me]," said a [small|short] note'
            " beside it."
        ),
        "{name} kept the {thing} [for the rest of {his} life|by the window|always].",
    ],
    [
        (
            "[every night|each evening], {name} looked [up at the stars|at the moon] and [wished"
            " for a friend|made a wish]."
        ),
        '"I wish I had [someone to play with|a friend|someone to talk to]," {he} said.',
        (
            "one night, a [light|star] fell [from the sky|down] and landed [near|by|behind] the"
            " {place}."
        ),
        (
            "{name} [ran|went] to look. there was no star, but there was a {fadj} {friend} [who had"
            " seen the light, too|who was looking at the sky]."
        ),
        (
            '"hello, I am {fname}," said the {friend}. "I [was wishing for a friend|am looking for'
            ' a friend, too]."'
        ),
        (
            "[they talked until the sun came up|they sat and talked all night|{name} laughed,"
            " because both wishes had come true]."
        ),
    ],
    [
        (
            "[there was going to be|one day there was] a race {at} the {place}. [everyone wanted to"
            " win|the prize was a {tadj} {thing}]."
        ),
        (
            '{fname}, a [proud|fast] {friend}, said, "[nobody is as fast as I am|I will win, of'
            ' course|you can never beat me]."'
        ),
        (
            "{name} [said nothing|only smiled] and [practised every {time}|trained each day|got"
            " ready]."
        ),
        (
            "on the day of the race, {fname} ran [ahead|very fast], but [fell into a hole|hurt"
            " {fhis} foot|fell down] [half way|near the end]."
        ),
        (
            "{name} could have won, but {he} stopped and [helped {fname} up|helped {fhim} to {fhis}"
            " feet]."
        ),
        (
            "they [crossed|reached] the line [side by side|together], and [everyone cheered|both of"
            " them won the prize]."
        ),
    ],
    [
        "one {sky} {time}, {name} [heard|noticed] a [strange|soft|quiet] sound {at} the {place}.",
        (
            '"what [is|was] that?" {he} [wondered|asked {self}|said]. {he} [looked behind a'
            " stone|followed the sound|listened again]."
        ),
        (
            "it was a baby {friend} [that had fallen from a tree|that was cold and alone|that could"
            " not find its mother]."
        ),
        (
            "{name} [kept it warm|wrapped it in a scarf|fed it with {food}] and [looked|went to"
            " look] for its mother."
        ),
        (
            "[when it was almost night|after a long search|at last], {he} found the mother [near"
            " the river|on the other side of the {place}]."
        ),
        (
            'the mother [was so happy that she cried|thanked {name} again and again|said, "you have'
            ' a good heart"].'
        ),
    ],
    [
        (
            "{name} told [a lie|something that was not true] one day. {he} said [that {fname} the"
            " {friend} had taken the {thing}|that {he} had not broken the {thing}]."
        ),
        (
            "[everyone was angry with {fname}|everyone believed {him}], and {fname} [was very"
            " sad|cried]."
        ),
        (
            "that night, {name} could not sleep. {he} [felt bad|had a heavy heart|thought about"
            " {fname}]."
        ),
        (
            'in the morning, {he} [told everyone the truth|stood up and told the truth]. "[it was'
            ' my fault|I broke the {thing}]," said {name}. "I am sorry."'
        ),
        (
            '"it was [hard|brave] to say that," said {fname}. "[thank you for telling the truth|I'
            ' am not angry any more]."'
        ),
        "{name} [felt light again|felt much better] and [never lied again|slept well that night].",
    ],
    [
        (
            "a [big|great|strong] storm came to the {place}. the wind [blew|howled], and the rain"
            " [fell|came down] [all night|for three days]."
        ),
        (
            "{name} was safe [in {home}|at home], but {he} [worried|thought] about {fname}, the"
            " {friend} who lived [by the river|on the hill|all alone]."
        ),
        "so {he} took [a lamp|a rope|a warm coat] and [went out|walked] into the storm.",
        "{he} found {fname} [on a rock|under a tree|in a tree], [wet and cold|shaking with cold].",
        (
            '"hold [on to me|my hand|the rope]," [cried|called] {name}, and [together|slowly] they'
            " [went|made their way] home."
        ),
        (
            "[they sat by the fire and ate {food}|soon they were warm, and they ate {food}|when the"
            " storm was over, they mended the roof together]."
        ),
    ],
    [
        (
            "{name} found an old map [in a box|under the bed|in a book]. it showed [a treasure|a"
            " secret place] {at} the {place}."
        ),
        (
            "{he} [asked|took] {fname} the {friend} [to come along|along], and they [set"
            " out|started] at once."
        ),
        (
            "they [crossed a river|climbed over rocks|went through a dark tunnel] and [walked past"
            " sleeping owls|counted a hundred steps|dug for hours]."
        ),
        "at last they found a box. inside was [only|not gold, but] a {tadj} {thing} and a letter.",
        (
            '"the real treasure is [the friend who came with you|the way you have come together],"'
            " said the letter."
        ),
        "{name} and {fname} looked at each other and [laughed|smiled].",
    ],
    [
        (
            '{name} wanted to learn to [swim|read|dance|sing|play the flute|paint]. "[it is too'
            ' hard for you|you are too small]," [some|the others] said.'
        ),
        (
            'but {fname}, a [wise|patient|kind] old {friend}, said, "[every day a little is'
            ' enough|come to me every {time}|start with one small step]."'
        ),
        (
            "so {name} [practised|tried] [every day|each morning|every {time}], even [when it"
            " rained|when {he} was tired]."
        ),
        (
            "{he} made [many|a lot of] mistakes, but {fname} [was never angry|always smiled and"
            ' said "again"].'
        ),
        (
            "after [a year|a long time|some months], {name} could do it [better than anyone|very"
            " well]. [all the others were surprised|everyone clapped]."
        ),
        '"[thank you|I could not have done it without you]," said {name} to {fname}.',
    ],
    [
        (
            "there was [a strange|a mysterious] light {at} the {place} every night. everyone [was"
            " afraid of it|talked about it]."
        ),
        (
            '"I will [find out what it is|go and look]," said {name}. {he} [hid behind a'
            " tree|waited until it was dark|walked there alone]."
        ),
        (
            'then {he} saw it: a {fadj} {friend} with a [small lamp|candle]. "[who are you|what are'
            ' you doing here]?" asked {name}.'
        ),
        (
            '"I am {fname}. I [read my book here|look for my lost {thing}|count the stars] at'
            ' night, because [it is quiet|nobody is here]."'
        ),
        '{name} laughed. "and we thought you were [a ghost|a monster]!"',
        (
            "after that, {name} often [came to sit with {fname}|went there with {fname}], and"
            " nobody was afraid any more."
        ),
    ],
]
