"""Words that the project made up for prompts: topics, wordings, and what is never trained on."""

TOPICS = tuple(
    name.strip()
    for name in """
agriculture; farming and crops; gardening; flowers and trees; forests; fishing; hunting;
pets; birds; insects; marine life; wild beasts; horses; weather and climate; storms and
floods; earthquakes; volcanoes; rivers and lakes; mountains; deserts; islands; oceans
and seas; the night sky; astronomy; space travel; physics; chemistry; biology; genetics;
mathematics; geometry; statistics; engineering; inventions; electronics; software;
programming languages; databases; computer security; cryptography; computer networks;
web design; mobile phones; robots; artificial intelligence; video games; gadgets;
blockchain and digital money; open source; technical standards; research; laboratory
work; archaeology; ancient history; the middle ages; royalty; kings and queens; empires;
revolutions; war and battles; armies and soldiers; the navy; weapons; spies; treaties
and diplomacy; foreign affairs; elections; political parties; parliament; laws and
courts; crime and punishment; prisons; police work; lawyers; human rights; taxes; public
services; government agencies; city planning; housing; immigration; banking; stock
markets; trade and tariffs; prices and inflation; jobs and wages; labour unions;
factories and industry; mining; oil and gas; electricity; shops and retail; advertising;
management; start-ups; insurance; accounting; real estate; shipping; railways; cars and
trucks; aircraft; ships; bicycles; roads and bridges; public transport; hotels; tourism;
holidays; maps and geography; cities and towns; small settlements; country life; castles
and palaces; churches; museums; houses; architecture; skyscrapers; factories; schools;
universities; teaching; students; exams; libraries; languages; grammar; dictionaries;
poetry; novels; fairy tales; myths and legends; magazines; newspapers; journalism;
radio; television; cinema; actors; theatre; dance; opera; pop songs; records and
concerts; musicians; bands; painting; sculpture; photography; fashion; clothing;
jewellery; cooking; recipes; restaurants; baking; wine and beer; tea and coffee; fruit
and vegetables; hunger; medicine; hospitals; doctors; nurses; surgery; diseases;
epidemics; mental illness; diet and exercise; drugs; pregnancy; death and burial; old
age; childhood; babies; parents; brothers and sisters; marriage; weddings; love and
romance; friendship; loneliness; anger; fear; joy; grief; jealousy; pride; courage;
kindness; honesty; betrayal; revenge; greed; poverty; wealth; slavery; religion; prayer;
the bible; saints and priests; philosophy; ethics; logic; psychology; dreams; ghosts;
magic; superstition; football; cricket; tennis; golf; swimming; running; boxing; horse
racing; baseball; basketball; ice hockey; chess; card games; gambling; olympic games;
athletes and teams; coaches; hiking; sailing; climbing; travel bookings; flight
reservations; hotel rooms; restaurant tables; movie tickets; bus tickets; taxi rides;
car rental; apartments for rent; doctor appointments; haircuts; banking transfers;
calendar and meetings; weather forecast; music streaming; pizza orders; customer
service; complaints; garbage and recycling; pollution; global warming; energy saving;
water supply; wildlife protection; a person's life; a scientist; a politician; a
soldier; a writer; a singer; a painter; a sports player; a ruler; a criminal; a teacher;
a merchant; a sailor; a servant; a family; a group of people; an army unit; a place to
live; a building to visit; a body of water; a landscape; a vehicle; a machine; a tool;
an organism; a business firm; a place of learning; a book; a movie; a song; a work of
art; an event; an idea; a disease; a food; a law; a computer program; a letter; a
journey; a conversation; an argument; a fight; a storm; a party; a meal; a death; a
birth; a secret; a mistake; a discovery; a proposal; a rule; a price;
""".replace("\n", " ").split(";")
    if name.strip()
)
"""Topics and kinds of things, as labels of a task might name them."""

SUBJECT_WORDINGS = (
    "What is the topic of the following paragraph?",
    "What is the text about?",
    "Which subject fits this passage best?",
    "Pick the best category for the text.",
    "Classify the paragraph.",
    "Which of these describes the passage?",
    "Select the most suitable label.",
    "What kind of thing does the paragraph describe?",
    "Decide which heading the text belongs under.",
    "Find the closest theme.",
    "Which one goes with the following text?",
    "Read the paragraph and name its subject.",
)

MENTION_WORDINGS = (
    "Which of these is mentioned in the text?",
    "Which words occur in the passage?",
    "Find the phrase that the paragraph contains.",
    "Which option appears in the following text?",
)

TITLE_WORDINGS = (
    "Which sentence belongs to the same story?",
    "Which of these comes from the same passage?",
    "Choose the best title for the text.",
    "What goes on like the following paragraph?",
)

MOOD_WORDINGS = (
    "How does the writer feel about it?",
    "What is the opinion in the following paragraph?",
    "What is the sentiment of the following paragraph?",
    "How satisfied is the customer?",
    "Rate the review.",
)

FORMS = (
    "{ask} Choose one from the option.\nOption: {options} \n{text}\nAnswer:",
    "{ask}\nOptions: {options}\n{text}\nAnswer:",
    "{ask} Choose one of: {options}.\nText: {text}\nAnswer:",
    "{text}\n{ask}\nChoices: {options}\nAnswer:",
    "Text: {text}\nQuestion: {ask}\nPossible answers: {options}\nAnswer:",
    "{ask}\n{options}\n\n{text}\nAnswer:",
    "Options: {options}\n{ask}\nParagraph: {text}\nYour choice:",
)
"""The first is the form of the paper's Table 6 and is drawn as often as all others together."""

REPEAT_FORMS = (
    "Repeat the text.\n{text}\nAnswer:",
    "Copy the words: {text}",
    "{text}\nSay that again:",
)

MOODS = {
    "bad": """terrible; awful; angry; disappointed; poor; a complaint; very unhappy; one star;
hated it""",
    "so-so": """so-so; average; mixed feelings; undecided; three stars; middling;
neither good nor bad""",
    "good": "excellent; wonderful; delighted; very happy; five stars; praise; loved it; satisfied",
}

MOOD_SENTENCES = {
    "bad": """it broke after {n} days; a complete waste of money; i want my money back;
the worst {x} i have ever bought; do not buy this {x}; the {x} arrived damaged and nobody answered
my
mails; i was bored and gave up after ten minutes; very disappointed with the {x}; it
does not work at all; cheap and badly made; the story was dull and the ending made no
sense; rude staff and cold food; i regret this purchase; it smells awful; stay away; the
{x} is useless; i threw it in the bin; it never did what they promised""",
    "so-so": """the {x} is okay, nothing special; it does the job but i expected more;
some parts are nice, others are not; it is fine for the price; not bad, not great; the first half
was
good and the rest was weak; average quality; i neither like nor dislike the {x}; it
works most of the time; good idea, but poorly finished; it could be better; an
acceptable {x}, though there are others; the {x} looks nice but feels cheap""",
    "good": """i love this {x}; it works perfectly; the best {x} i have ever owned;
highly recommended; worth every penny; i could not put it down; beautifully made and easy to use;
fast
delivery and friendly service; we use the {x} every day and it still looks new; i bought
a second one for my sister; a joy from beginning to end; great quality; i am very happy
with the {x}; it made me laugh and cry; fantastic; delicious food and kind waiters; it
was exactly what i needed; everybody should have one""",
}

THINGS = """blender; kettle; novel; film; album; restaurant; hotel; lamp; camera; toy; backpack;
chair; phone case; cookbook; game; printer; pillow; jacket; pair of shoes; headset;
keyboard; bicycle pump; mattress; umbrella; watch; tent; coffee maker; series;
biography; guitar; knife; vacuum cleaner; charger; puzzle"""

NEVER_OPTIONS = frozenset(
    """world; sports; business; science or technology; company; educational institution;
artist; athlete; office holder; mean of transportation; building; natural place;
village; animal; plant; album; film; written work; society culture; science mathematics;
health; education reference; computers internet; business finance; entertainment music;
family relationships; politics government; very negative; negative; neutral; positive;
very positive; good; bad; true; false; entailment; contradiction; a; b; society &
culture; science & mathematics; education & reference; computers & internet; business &
finance; entertainment & music; family & relationships; politics & government""".replace(
        "\n", " "
    ).split("; ")
)
"""Labels of the benchmark: none is an option in training, so its option lists stay unseen."""
