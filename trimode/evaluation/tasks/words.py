"""Cities, products, identifiers and plain words, as data."""


def listed(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


CITIES: tuple[str, ...] = listed(
    """
    Amsterdam Athens Austin Bangkok Basel Beirut Bergen Berlin Bogota Boston Bremen Brussels Cairo
    Chicago Cologne Dakar Dallas Delhi Denver Dublin Florence Geneva Genoa Ghent Graz Hamburg Hanoi
    Havana Helsinki Istanbul Jakarta Kyoto Lagos Leeds Lima Lisbon London Lyon Madrid Malaga Manila
    Miami Milan Montreal Moscow Munich Nairobi Naples Nice Osaka Oslo Paris Porto Prague Quito Riga Rome
    Salzburg Seattle Seoul Seville Sofia Sydney Tallinn Tokyo Toronto Turin Tunis Utrecht Valencia
    Venice Vienna Vilnius Warsaw York Zagreb Zurich
    """
)

PRODUCTS: tuple[str, ...] = listed(
    """
    adapter anchor apron backpack basket battery bell belt bench bicycle blanket bottle bowl bracket
    brush bucket cabinet cable camera candle carpet chain chair charger clock coat compass cup curtain
    cushion desk drill drum engine envelope fan filter flask folder fork frame funnel glove guitar
    hammer handle hat heater helmet hinge jacket jar kettle keyboard knife ladder lamp lantern lens lock
    magnet mattress mirror monitor mouse mug needle notebook oven paddle paint pan pencil phone piano
    pillow pipe plate printer pump radio rope router ruler saddle scarf scissors screen shelf shovel
    speaker spoon stamp stove switch table tablet teapot telescope tent ticket toaster towel tray tripod
    umbrella valve vase wallet watch wheel whistle wrench
    """
)

# What a field holds, so that its values look plausible: see values.typed_value.
TEXT_FIELDS: dict[str, str] = {
    **dict.fromkeys(("name", "customer", "owner", "author", "manager", "contact", "driver"), "person"),
    **dict.fromkeys(("city", "origin", "destination", "location", "branch"), "city"),
    **dict.fromkeys(("product", "item", "article", "part"), "product"),
    **dict.fromkeys(("date", "created", "due", "start", "birthday", "shipped"), "date"),
    **dict.fromkeys(("email", "sender", "mail", "reply_to"), "email"),
    **dict.fromkeys(("code", "label", "title", "key", "user", "team", "status"), "word"),
}
INT_FIELDS: tuple[str, ...] = listed(
    "age amount count floor id index level limit number order page points port quantity rank room score "
    "seats size stock version year zone"
)
FLOAT_FIELDS: tuple[str, ...] = listed(
    "balance cost discount distance height length price rate ratio speed tax total weight width"
)
BOOL_FIELDS: tuple[str, ...] = listed(
    "active approved closed done enabled hidden locked open paid public ready urgent valid verified"
)
LIST_FIELDS: tuple[str, ...] = listed("colors groups members parts roles tags topics")
INT_LIST_FIELDS: tuple[str, ...] = listed("codes grades marks ports scores sizes")
NESTED_FIELDS: tuple[str, ...] = listed("account address billing company profile settings")

CLASSES: tuple[str, ...] = listed(
    """
    Account Address Article Booking Branch Car Course Customer Device Driver Employee Event Flight Guest
    Hotel Invoice Item Journey Letter Library Machine Meeting Member Message Order Package Parcel
    Patient Payment Person Player Product Project Report Room Sensor Session Shipment Student Supplier
    Task Team Ticket Tool Vehicle Visit
    """
)

VERBS: tuple[str, ...] = listed(
    "apply build calc check combine compute derive eval find get handle make measure process run solve"
)

NOUNS: tuple[str, ...] = listed(
    """
    amount angle apple area beach bird block board bridge cloud coin color corner cost door edge field
    fire flower forest garden grade house island letter level line market metal moon music night number
    ocean orange page paper point price rate river road rock score sea signal size sky speed star step
    stone storm street sun time tower town tree unit wall water weight wind window winter wood
    """
)
