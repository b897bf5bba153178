"""What the demo's texts are made of. `demo.py` puts the pieces together.

Each split has templates of its own. Of a list of words, the last `HELD_OUT` never occur in
training.
"""

HELD_OUT = 3

TOPICS: dict[str, dict[str, tuple[str, ...]]] = {
    "Sports": {
        "person": (
            *("a young goalkeeper", "the team captain", "a retired sprinter", "the tennis coach"),
            *("a local cyclist", "the match referee", "a marathon runner"),
            *("a rugby player", "the swimming champion", "a gymnast"),
        ),
        "doing": (
            *("training for the cup final", "practising penalty kicks", "running around the track"),
            *("lifting weights before the race", "studying the other team's defence"),
            *("preparing for the next match", "working on a faster serve"),
            *("warming up for the second half", "swimming forty lengths", "chasing a record"),
        ),
        "thing": (
            *("the late winning goal", "a broken tennis racket", "the league table"),
            *("an unfair red card", "the new training plan", "a silver medal", "the defeat"),
            *("the injured striker", "a record crowd at the game", "the relay race"),
        ),
        "place": (
            *("at the stadium", "in the locker room", "beside the running track", "in the gym"),
            *("on the tennis court", "at the training ground", "behind the goal"),
            *("at the ice rink", "by the swimming pool", "in the boxing ring"),
        ),
    },
    "Food": {
        "person": (
            *("a pastry chef", "the owner of a small bakery", "a street food vendor"),
            *("the head cook", "a cheese maker", "a friendly waiter", "an old fishmonger"),
            *("a young baker", "the kitchen assistant", "a noodle cook"),
        ),
        "doing": (
            *("simmering a rich onion soup", "kneading dough for rye bread", "seasoning lentils"),
            *("roasting peppers with garlic", "tasting three kinds of olive oil"),
            *("grating lemon peel into a cake", "frying dumplings in sesame oil"),
            *("baking an apple pie", "melting chocolate for a tart", "pickling cucumbers"),
        ),
        "thing": (
            *("the secret sauce", "a plate of fresh pasta", "the smell of warm cinnamon rolls"),
            *("a spicy bean stew", "the taste of good butter", "a recipe for plum jam"),
            *("the crust of the bread", "a bowl of rice", "the salty ham", "a potato salad"),
        ),
        "place": (
            *("in the kitchen", "at the vegetable market", "behind the bakery counter"),
            *("at the dinner table", "in a crowded restaurant", "next to the hot oven"),
            *("at the spice stall", "in the dining room", "at the lunch counter", "at the grill"),
        ),
    },
    "Travel": {
        "person": (
            *("a tour guide", "the hotel manager", "a backpacker from Chile", "a tired passenger"),
            *("the ferry captain", "an airline pilot", "a couple on their honeymoon"),
            *("the train conductor", "a visitor from abroad", "the border officer"),
        ),
        "doing": (
            *("crossing the island by bus", "packing a suitcase for the flight"),
            *("looking for a cheap hostel", "waiting for a delayed plane", "reading road signs"),
            *("sailing along the rocky coast", "taking the night train to Lisbon"),
            *("booking a trip to Iceland", "driving through the desert", "exploring the old town"),
        ),
        "thing": (
            *("the lost passport", "a window seat on the plane", "the long queue at customs"),
            *("a map of the harbour", "the visa rules", "the view from the hotel balcony"),
            *("a missed connection", "the jet lag", "a guidebook to Morocco", "the luggage limit"),
        ),
        "place": (
            *("at the airport", "on the ferry deck", "in a seaside hotel", "near the border"),
            *("at the train station", "in the departure hall", "at a remote campsite"),
            *("on a palm beach", "at the tourist office", "in the bus terminal"),
        ),
    },
    "Science": {
        "person": (
            *("a marine biologist", "the head of the laboratory", "a physics student"),
            *("an astronomer", "a young chemist", "the lead researcher", "a geologist"),
            *("a botanist", "the professor of genetics", "a climate scientist"),
        ),
        "doing": (
            *("measuring the spin of electrons", "comparing samples of bacteria"),
            *("observing a distant galaxy", "testing a theory of gravity", "drilling an ice core"),
            *("counting cells under a microscope", "mapping the genome of a worm"),
            *("analysing data from a space probe", "separating proteins", "dating fossils"),
        ),
        "thing": (
            *("the failed experiment", "the structure of the molecule", "a faint radio signal"),
            *("the new vaccine trial", "an error in the equation", "the magnetic field of Mars"),
            *(
                "the unexpected data",
                "a particle detector",
                "a rare isotope",
                "the origin of cells",
            ),
        ),
        "place": (
            *("in the laboratory", "at the observatory", "at the research station"),
            *("in the lecture hall", "next to the microscope", "at the physics institute"),
            *("in the clean room", "beside the telescope", "in the seminar", "at the particle lab"),
        ),
    },
}

ITEMS = (
    *(("hotel", "room", "breakfast"), ("novel", "plot", "ending"), ("film", "story", "music")),
    *(("phone", "screen", "battery"), ("cafe", "coffee", "service"), ("jacket", "fabric", "fit")),
    *(("course", "teacher", "material"), ("game", "design", "sound"), ("tent", "zip", "floor")),
    *(("museum", "exhibition", "shop"), ("bicycle", "frame", "saddle"), ("play", "stage", "cast")),
)
"""What is reviewed, with two aspects of it."""

OPINIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "positive": {
        "adj": (
            *("excellent", "delightful", "superb", "charming", "impressive", "lovely"),
            *("brilliant", "wonderful", "outstanding", "flawless", "marvellous"),
        ),
        "verdict": (
            *("a real pleasure", "worth every penny", "better than I had hoped"),
            *("the best choice we made all year", "a joy from the first minute"),
            *("a treat for the whole family", "money well spent", "simply great"),
        ),
        "reaction": (
            *("I would happily choose it again", "I told all my friends to try it"),
            *("I could not stop smiling", "we thanked everyone twice", "it made our week"),
            *("I felt lucky for days", "we celebrated that evening", "it won my heart"),
        ),
    },
    "negative": {
        "adj": (
            *("dreadful", "disappointing", "awful", "annoying", "poor", "miserable"),
            *("terrible", "ugly", "horrible", "shoddy", "unbearable"),
        ),
        "verdict": (
            *("a real letdown", "a waste of money", "worse than I had feared"),
            *("the biggest mistake we made all year", "a pain from the first minute"),
            *("an insult to every customer", "money thrown away", "simply bad"),
        ),
        "reaction": (
            *("I would never choose it again", "I told all my friends to avoid it"),
            *("I could not stop complaining", "we asked for a refund twice", "it ruined our week"),
            *("I felt cheated for days", "we argued that evening", "it broke my heart"),
        ),
    },
}

NAMES = ("Nora", "Tom", "Amina", "Victor", "Lucy", "Omar", "Ingrid", "Paul", "Mei", "Jonas", "Rita")
JOBS = (
    *("nurse", "teacher", "carpenter", "librarian", "farmer", "bus driver", "painter", "lawyer"),
    *("plumber", "singer", "gardener"),
)
TOWNS = ("Leeds", "Porto", "Bergen", "Lyon", "Krakow", "Dublin", "Ghent", "Turin", "Graz", "Malmo")

EVENTS = (
    "walked to work in heavy rain | went/go to work on foot | rode to work on the bus as usual"
    " | took/take the bus to work | wore/wear a yellow coat",
    "missed the last train home | came/come too late for the train"
    " | got on the last train home in time | caught/catch the last train"
    " | slept/sleep at a friend's house",
    "lost the chess match in twenty moves | suffered/suffer a defeat at chess"
    " | beat a strong rival at chess | won/win the chess match"
    " | complained/complain about the noise",
    "turned down the job in the capital | refused/refuse the job offer"
    " | said yes to the job in the capital | accepted/accept the job offer"
    " | talked/talk about the job with an uncle",
    "painted the white kitchen yellow | gave/give the kitchen a new colour"
    " | decided to keep the kitchen white | left/leave the kitchen as it was"
    " | bought/buy a new kitchen table",
    "sold every loaf of bread before noon | ran/run out of bread by lunchtime"
    " | went home with unsold bread in the evening"
    " | kept/keep some of the bread until the evening | made/make the bread from rye",
    "slept through the whole concert | spent/spend the concert asleep"
    " | listened to every song of the concert | stayed/stay awake during the concert"
    " | paid/pay a lot for the concert ticket",
    "repaired the broken radio with a new cable | got/get the radio to work again"
    " | threw the broken radio into the bin | gave/give up on the broken radio"
    " | bought/buy the radio at a flea market",
    "kept the shop open all night | let/let customers in after midnight"
    " | locked the shop at six and went to bed | closed/close the shop for the night"
    " | earned/earn more than the day before",
    "cycled to the coast with two friends | went/go to the sea by bicycle"
    " | drove to the coast in a small car | went/go to the sea by car"
    " | had/have lunch at the coast",
    "cancelled the holiday because of the storm | gave/give up the holiday plans"
    " | left for the holiday in spite of the storm | set/set off for the holiday"
    " | called/call the hotel about the storm",
    "spoke to nobody at the party | kept/keep silent at the party"
    " | chatted with every guest at the party | talked/talk a lot at the party"
    " | danced/dance at the party",
)
"""An event | the same in other words | an event that rules it out | that in other words | what may
be in both cases. What is a hypothesis has the verb's past and infinitive, so that it can be denied.
"""

PEOPLE = (
    *("the baker", "our neighbour", "the doctor", "my uncle", "the captain", "your cousin"),
    *("the tailor", "the student", "the mayor", "my sister", "the postman", "her grandfather"),
)
DEALS = (
    *(("lent", "to", "borrowed", "from"), ("sold", "to", "bought", "from")),
    *(("sent", "to", "received", "from"), ("handed", "to", "got", "from")),
    *(("gave", "to", "accepted", "from"), ("returned", "to", "got back", "from")),
    *(("leased", "to", "rented", "from"), ("passed on", "to", "took over", "from")),
)
"""One deal, told from both sides."""

OBJECTS = (
    *(("a bicycle", "a bike"), ("a sofa", "a couch"), ("a car", "an automobile")),
    *(("a photograph", "a photo"), ("a rug", "a carpet"), ("a telephone", "a phone")),
    *(("a rucksack", "a backpack"), ("a fridge", "a refrigerator"), ("a jumper", "a sweater")),
    *(("a television", "a TV set"), ("a lorry", "a truck"), ("a torch", "a flashlight")),
)
TIMES = (
    *(("last week", "a week ago"), ("at noon", "at twelve o'clock"), ("in autumn", "in the fall")),
    *(("two weeks ago", "a fortnight ago"), ("twelve months ago", "one year ago")),
    *(("at dawn", "at sunrise"), ("at dusk", "at sunset"), ("ten years ago", "a decade ago")),
    *(("on Sunday night", "late on Sunday"), ("at midnight", "at twelve at night")),
)
"""Objects and times in two wordings that mean the same."""

TEMPLATES: dict[str, dict[str, tuple[str, ...]]] = {
    "topic": {
        "train": (
            "Last week we met {person} who was busy {doing}, and we ended up talking about {thing} "
            "{place}.",
            "For most of the day {person} was {doing} and had little time to talk about {thing}.",
            "There was a long discussion about {thing} {place}, mostly because {person} had been "
            "{doing} since early morning.",
            "At first {doing} sounds easy, but {person} explained {place} why {thing} matters.",
            "Everyone {place} asked about {thing}, while {person} quietly went on {doing}.",
        ),
        "dev": (
            "Our reporter found {person} {place}; after hours of {doing}, the only subject left "
            "was {thing}.",
            "For {person}, {doing} belongs to an ordinary day, and so does an argument about "
            "{thing} {place}.",
            "A short video shows {person} {doing} and then laughing about {thing} {place}.",
        ),
        "test": (
            "Nobody {place} was surprised to see {person} {doing} again, although {thing} had "
            "caused some trouble the day before.",
            "If you ask {person} about {thing}, you will hear a long story that begins {place} and "
            "ends with {doing}.",
            "It all started {place}: {person} mentioned {thing}, and soon the whole group was "
            "{doing}.",
            "What {person} remembers best from last year is {thing} {place}, and after that "
            "{doing} until late.",
        ),
    },
    "sentiment": {
        "train": (
            "The {a} of this {item} was {adj} and the {b} was {adj2}, so all in all it was "
            "{verdict}.",
            "I chose the {item} because of its {a}, which turned out to be {adj}; {reaction}.",
            "We talked about the {item} for days: the {a} was {adj}, and {reaction}.",
            "My neighbour called the {item} {other}, but for me the {a} was {adj} and the whole "
            "thing was {verdict}.",
            "After one look at the {a} I knew that this {item} would be {verdict}, and {reaction}.",
        ),
        "dev": (
            "Somebody asked me about the {item} today: the {b} seemed {adj} to me, and frankly it "
            "was {verdict}.",
            "You can judge a {item} by its {a}; here I would call it {adj}, and {reaction}.",
            "Having heard that the {item} was {other}, I was surprised to find the {a} {adj} and "
            "the {b} {adj2}.",
        ),
        "test": (
            "In short, {reaction}, since the {a} of the {item} proved to be {adj} and even the {b} "
            "felt {adj2}.",
            "Other people may disagree about the {b}, yet I still remember how {adj} the {a} of "
            "that {item} was, and {reaction}.",
            "Before we decided on the {item} somebody described it as {other}; in truth the {a} is "
            "{adj}, and the rest is {verdict}.",
            "Two words about the {item}? Its {a} is {adj}, its {b} is {adj2}, and I can only call "
            "it {verdict}.",
        ),
    },
    "premise": {
        "train": (
            "We read that {name}, a {job} from {town}, {did}.",
            "My old friend {name}, who works as a {job}, {did}.",
            "On that day {name} {did}, which is rare for a {job}.",
        ),
        "dev": (
            "Have you heard that {name}, our new {job}, {did}?",
            "The local paper of {town} reports that a {job} named {name} {did}.",
        ),
        "test": (
            "The whole story is short: {name} {did}, although nobody expected it of a {job}.",
            "Everyone in {town} knows by now that {name} the {job} {did}.",
            "Like many a {job} before, {name} from {town} {did}.",
        ),
    },
    "hypothesis": {
        "train": ("This means that {name} {said}.", "It is said that the {job} {said}."),
        "dev": ("So {name} {said}, people think.", "Somebody claims that the {job} {said}."),
        "test": ("In other words, the {job} {said}.", "One could say that {name} {said}."),
    },
    "deal": {
        "train": (
            "We were told that {who} {did} {what} {prep} {whom} {when}.",
            "I am sure that {when} {who} {did} {what} {prep} {whom}.",
            "In the end {who} {did} {what} {prep} {whom}, and that was {when}.",
        ),
        "dev": (
            "It was {who} who {did} {what} {prep} {whom} {when}.",
            "People say it happened {when} that {who} {did} {what} {prep} {whom}.",
        ),
        "test": (
            "What {who} {did} {prep} {whom} {when} was {what}.",
            "I remember well how {who} {did} {what} {prep} {whom} {when}.",
            "As you know, {what} is the thing that {who} {did} {prep} {whom} {when}.",
        ),
    },
}
"""By kind of sentence and split. No sentence of one split fits a template of another."""
