"""Names of icons and emoji: which mean the same, which mean nothing certain, and who draws alike. Tables of `make`."""

from __future__ import annotations

# Names of one thing, the usual one first.
SAME = """
    airplane plane; apps grid-view view-grid layout-grid; area-chart chart-area; armchair chair;
    arrow-back back; at at-sign; axe hatchet; bandage band-aid; bank landmark; bar-chart chart-bar chart-column;
    barcode-scan scan-barcode; bell notification notifications; bell-off bell-slash notification-off;
    bike bicycle; bin trash trash-can recycle-bin; box package shipping-box; box-open package-open;
    brightness sun-brightness; broadcast antenna; broom clean; bulb light-bulb lightbulb; bullhorn megaphone;
    bullseye target; calendar calendar-date calendar-days calendar-day; camera photo-camera;
    camera-video video-camera video; cart shopping-cart; cart-plus shopping-cart-plus; cd disc compact-disc disk;
    chat chat-bubble comment message; chat-text comment-text message-text; check checkmark; checklist tasks list-check;
    chip cpu microchip computer-chip; christmas-tree pine-tree; clapperboard movie; clipboard paste; close xmark times
    multiply; cloud-down cloud-download cloud-arrow-down; cloud-up cloud-upload cloud-arrow-up backup;
    cloud-lightning thunderstorm storm; coffee coffee-cup cafe; cog cogs gear setting settings;
    controller game-controller gamepad joystick; copy duplicate clone; couch sofa; credit-card payment;
    crosshair crosshairs; cursor mouse-pointer arrow-cursor pointer; database server-database; display monitor;
    divide division; dollar dollar-sign currency-dollar; donut doughnut; dots-horizontal ellipsis ellipsis-h more
    more-horizontal; dots-vertical ellipsis-v ellipsis-vertical more-vertical; droplet drop water-drop;
    dumbbell barbell; edit edit-square pencil-square; equal equals; euro currency-euro; external-link link-external;
    eye view visible; eye-off eye-slash hide invisible; eyedropper eye-dropper pipette color-picker; feed rss;
    file document; filter funnel; fingerprint finger-print; fire flame burn; first-aid first-aid-kit medkit;
    flip-h flip-horizontal; flip-v flip-vertical; floppy-disk save; folder-plus new-folder; fork-knife utensils
    restaurant fork-spoon; fridge refrigerator; frown face-frown sad face-sad; full-screen fullscreen maximize; gas-pump
    gas-station fuel; gem diamond; gender-female venus female; gender-male mars male; gift present gift-box; glasses
    eyeglasses; globe earth world; grip drag; hard-drive hard-disk hdd; hash hashtag; headphone headphones; heart
    like-heart; heartbeat heart-pulse heart-rate pulse; home house; ice-cream icecream; id-card identification;
    image photo picture; images gallery photos; incognito incognito-mode; infinity infinite; info information;
    italic text-italic format-italic; jar container; layers layer layer-group; lifebuoy life-ring buoy;
    lightning bolt zap lightning-bolt thunderbolt flash; link link-chain; link-break unlink broken-link link-off;
    list-bullet bullet-list list-ul; list-ordered ordered-list list-ol; location location-pin map-pin map-marker marker
    place; lock padlock lock-closed; unlock lock-open; log-in login sign-in; log-out logout sign-out; mail email
    envelope; mail-open envelope-open; map-folded map; medal award; meh neutral-face face-neutral; menu bars
    hamburger-menu; microphone mic voice; microphone-off mic-off microphone-slash; mobile mobile-phone smartphone;
    money-bill banknote cash bill; motorcycle motorbike; music music-note note-music; newspaper news-paper news;
    paint-brush paintbrush brush; palette paint-palette color-palette; paper-plane send; paperclip paper-clip
    attachment attach; party-popper confetti; people users user-group; percent percentage;
    person user account avatar; person-plus user-plus add-user account-plus; phone call telephone;
    picture-in-picture pip; pie-chart chart-pie; piggy-bank savings; pill capsule pills; pin pushpin thumbtack;
    pizza pizza-slice; plug electric-cord power-plug; plus add; power power-off power-button; previous skip-back
    skip-previous; next skip-forward skip-next; printer print; puzzle puzzle-piece module-puzzle extension;
    qr-code qrcode qr; question question-mark help; quote quote-left; radiation radioactive; recycle recycling;
    refresh reload sync; robot bot; run running; scissors scissor cut; sd-card sd; search magnifying-glass;
    zoom-in search-plus; zoom-out search-minus; seedling sprout plant; shirt t-shirt; shop store storefront; sim-card
    sim; slider sliders sliders-horizontal; smile smiley face-smile happy happy-face emoji; soccer soccer-ball football;
    spinner loader loading; stop-sign octagon; stroller baby-carriage; suitcase luggage suitcase-rolling; switch toggle
    toggle-on toggle-right; toggle-off toggle-left; syringe injection needle; tablet ipad; text-align-center
    align-center align-text-center; text-align-justify align-justify; text-align-left align-left; text-align-right
    align-right; thumbs-down thumb-down dislike; thumbs-up thumb-up like; toolbox tool-box; translate language;
    trending-down trend-down; trending-up trend-up; truck delivery-truck; tv television; underline
    text-underline; virus coronavirus bacteria; voicemail voice-mail; walk walking; warning alert-triangle
    exclamation-triangle danger; wheelchair accessible; wine wine-glass; zip file-zip folder-zip; vial test-tube;
    volume-high volume-up; window app-window; panel-left sidebar; arrow-up-left arrow-top-left; arrow-up-right
    arrow-top-right; arrows-up-down arrow-up-down swap-vertical; arrows-left-right arrow-left-right swap-horizontal;
    chevrons-down chevron-double-down angle-double-down; chevrons-left chevron-double-left angle-double-left;
    chevrons-right chevron-double-right angle-double-right; chevrons-up chevron-double-up angle-double-up;
    chevron-down angle-down; chevron-left angle-left; chevron-right angle-right; chevron-up angle-up;
    circle-check check-circle; shield security; clock time; key password; rain cloud-rain; snow cloud-snow;
    cupcake cake-slice; cake birthday-cake; gavel law; sun sunny; magic-wand magic wand; stopwatch timer;
    speedometer gauge tachometer dashboard-speed; graduation-cap education; ear hearing; signpost sign-post direction;
    tea tea-cup; balloon party-balloon; tennis tennis-ball; golf golf-course; palm-tree palmtree island-palm;
    money-bag moneybag; hospital hospital-building; book-open open-book; paint-roller roller; socks sock;
    beer beer-mug; bath bathtub; archive archive-box; battery-charging battery-charge; closed-caption closed-captioning;
    angry face-angry; volume-off volume-mute volume-x; phone-off call-end phone-hang-up; file-up file-upload
    file-arrow-up; file-down file-download file-arrow-down; user-x user-remove user-minus; calendar-x calendar-remove;
    file-x file-remove file-delete; folder-x folder-remove folder-delete; folder-up folder-upload; folder-down
    folder-download; electricity plug; file-plus new-file; maximize full-screen; water waves wave; 
    minus subtract; pen pencil; file-spreadsheet file-excel file-xls; headset support; smoking cigarette;
    chart-column chart-bar; file-image image-file; file-music file-audio audio-file; file-video video-file;
    file-ppt file-powerpoint ppt
"""

# Words that mean the same beside another word.
WORDS = {
    "account": "user",
    "add": "plus",
    "cog": "settings",
    "comment": "chat",
    "document": "file",
    "envelope": "mail",
    "gear": "settings",
    "message": "chat",
    "microphone": "mic",
    "notification": "bell",
    "person": "user",
    "photo": "image",
    "picture": "image",
    "setting": "settings",
    "slash": "off",
    "trash": "bin",
}

# Names that are no concept.
BRANDS = """
    adobe adobe-photoshop alipay amazon android app-store apple behance bitbucket bitcoin blogger bluesky bootstrap
    chrome chromecast claude codepen css css3 discord docker dribbble dropbox edge ethereum facebook figma firefox
    flickr foursquare gemini git github gitlab google google-drive google-play google-plus html html5 instagram intercom
    java javascript linkedin linux markdown mastercard mastodon messenger microsoft netflix nintendo-switch nodejs
    notion npm opera patreon paypal php pinterest pocket python quora react reddit safari skype slack snapchat
    soundcloud spotify steam stripe telegram threads tiktok trello tumblr twitch twitter ubuntu unsplash vimeo visa vk
    vuejs wechat weibo whatsapp wikipedia windows wordpress xbox yahoo yarn youtube airpods gameboy iphone pacman
    pokeball creative-commons airplay
"""
SEVERAL_MEANINGS = """
    activity address alert application arrow audio background ball bar block blocks board body border box-select
    branch build button card category clear collection color column command communication component compose connect
    connection construction contact contract control dash data desk details directions disabled discount dome dot dots
    down drawer drink edge element engine enter error exchange exclamation exclude exit expand experiment explore export
    exposure face feedback fill finance five flare focus form format forward four frame function game glass gold graph
    grin hamburger hand hands health height icon icons import industry input-box install insurance intersect jump label
    left less library license light line list log loop margin math medium memory mention meta metro miscellaneous model
    move mute network new node note number numbers object one open option options orange orbit organization other page
    paper path performance pie plan point pot poll prism process profile queue radio-button random reduce remote remove
    rename reorder repeat-one replay report reset resize restart return right ring rotate round row rows scale scales
    schedule screen script seal section segment select shape shapes share-link shift sign signal six slice slide socket
    sort sound space spacing spa sparkle speaker sphere split square-full stack start stars status stock storage
    stream style success support swap system tab table-rows target task template text three time today token tool
    tools topic tower transaction transfer transform tray trip two type union up update variable vector verified vip
    voice work zoom add-on cast color-filter date flat-color analysis analytics auto bubble cross-out customer-support
    strategy traffic circle square dice-one politics-vote hospital-sign controller-wireless document-list
    microscope-observation-sciene insurance-hand virus-antivirus mail-send-email-message cellular-network-lte
    cloud-data-transfer spiral-shape hotel-bed iris-scan computer-science graph-dot layout-window page-setting
    body-part empty-clipboard medicine-bottle ai back more pound hail smoke check-file 4k ad ampersand blur api diff
    adjust gps wave web object-ungroup object-group table-cells-merge polygon facebook-logo instagram-logo logo-github
    logo-linkedin logo-google twitter-logo cancel cross delete group favorite letter delivery arrow-forward
"""

# Sets of one origin that neither the author's name nor equal pictures tell.
RELATED = """
    fa fa-regular fa-solid fa6-regular fa6-solid fa7-regular fa7-solid la; lucide lucide-lab feather; ion famicons;
    ic material-symbols material-symbols-light mdi mdi-light google; heroicons heroicons-outline heroicons-solid
    sidekickicons; mi mono-icons; pepicons pepicons-pencil pepicons-pop pepicons-print; boxicons bx bxs;
    maki temaki pinhead; uil uim uis uit; fluent fluent-color fluent-mdl2; eos-icons material-symbols;
    mynaui vadivam; icon-park icon-park-outline icon-park-solid icon-park-twotone; glyphs glyphs-poly
"""


def pairs(table: str) -> dict[str, str]:
    """Name -> another one, of a table of names with "=" between them."""
    return dict(pair.split("=") for pair in table.split())


def groups(table: str) -> list[list[str]]:
    """Names between semicolons."""
    return [group.split() for group in table.split(";")]


# What Firefox's emoji are called elsewhere, where that differs by more than dashes.
FXEMOJI = """
    2hearts=two-hearts americasglobe=globe-showing-americas asiaaustraliaglobe=globe-showing-asia-australia
    europeafricaglobe=globe-showing-europe-africa angry=angry-face anguish=anguished-face antennawithbars=antenna-bars
    astonished=astonished-face aubergine=eggplant bactriancamel=two-hump-camel dromedarycamel=camel
    basketballandhoop=basketball bellcancellation=bell-with-slash billiards=pool-8-ball blacktelephone=telephone
    blackscissors=scissors boot=womans-boot chilipepper=hot-pepper cellphone=mobile-phone crying=crying-face
    loudlycrying=loudly-crying-face cop=police-officer controlknob=control-knobs confounded=confounded-face
    confused=confused-face daggerknife=dagger hocho=kitchen-knife earofmaize=ear-of-corn earofrice=sheaf-of-rice
    electrictorch=flashlight evergreen=evergreen-tree expressionless=expressionless-face fallingleaf=fallen-leaf
    fatherchristmas=santa-claus fearful=fearful-face fireworksparkler=sparkler fishcakeswirl=fish-cake-with-swirl
    fishingpoleandfish=fishing-pole flushed=flushed-face frontfacingchick=front-facing-baby-chick gem=gem-stone
    grimacing=grimacing-face guardsman=guard hampster=hamster heels=high-heeled-shoe hushed=hushed-face
    hourglassflowingsand=hourglass-not-done hundredpointssymbol=hundred-points imp=angry-face-with-horns
    izakayalantern=red-paper-lantern leaffluttering=leaf-fluttering-in-wind lock=locked openlock=unlocked
    lockandkey=locked-with-key mahjong=mahjong-red-dragon womansshirt=womans-clothes mensshoe=mans-shoe
    minidisc=computer-disk monkeyhear=hear-no-evil-monkey monkeysee=see-no-evil-monkey
    monkeyspeak=speak-no-evil-monkey moyai=moai neutral=neutral-face nomouth=face-without-mouth opticaldisc=optical-disk
    pensive=pensive-face pigsnout=pig-nose poo=pile-of-poo pray=folded-hands present=wrapped-gift
    raincloud=cloud-with-rain racecar=racing-car sandals=womans-sandal schoolsatchel=backpack
    screamfear=face-screaming-in-fear sheep=ewe sleeping=sleeping-face sleepy=sleepy-face sliceofpizza=pizza
    smirk=smirking-face snowcloud=cloud-with-snow snowmountains=snow-capped-mountain spurtingwhale=spouting-whale
    steamlocomotive=locomotive studiomic=studio-microphone surfer=person-surfing tennisball=tennis
    thoughtbaloon=thought-balloon tie=necktie tigerside=tiger tiger=tiger-face tired=tired-face toykotower=tokyo-tower
    triumph=face-with-steam-from-nose unamused=unamused-face weary=weary-face weightlifter=person-lifting-weights
    winking=winking-face worried=worried-face sweatsplash=sweat-droplets bunny=rabbit-face bunnyside=rabbit
    cat=cat-face catside=cat dog=dog-face dogside=dog dragonhead=dragon-face dragonside=dragon mouse=mouse-face
    mouseside=mouse pig=pig-face pigside=pig leopardside=leopard halo=smiling-face-with-halo
    hearteyes=smiling-face-with-heart-eyes curryandrice=curry-rice doveofpeace=dove clap=clapping-hands
    flexbicep=flexed-biceps wave=waving-hand playingcardblackjoker=joker sakebottleandcup=sake relieved=relieved-face
    perservere=persevering-face disappointed=disappointed-face dissapointedrelief=sad-but-relieved-face
    medicalmask=face-with-medical-mask videocasette=videocassette skiandskiboot=skis golfer=person-golfing
    bicyclist=person-biking haircut=person-getting-haircut beachumbrella=beach-with-umbrella
    bouquetofflowers=bouquet grinsweat=grinning-face-with-sweat grintears=face-with-tears-of-joy
    grinsquint=grinning-squinting-face kissing=kissing-face kissclosedeyes=kissing-face-with-closed-eyes
    openmouth=face-with-open-mouth tongueoutwink=winking-face-with-tongue sweat=downcast-face-with-sweat
    coldsweat=anxious-face-with-sweat smileeyes=smiling-face-with-smiling-eyes aok=ok-hand gma=old-woman gpa=old-man
    turban=person-wearing-turban guapimao=person-with-skullcap bride=person-with-veil bowing=person-bowing
    nogesture=person-gesturing-no hands=raising-hands headmassage=person-getting-massage swimming=person-swimming
    rowboat=person-rowing-boat sleuthspy=detective dancer=woman-dancing dash=dashing-away anger=anger-symbol
    bolt=high-voltage chartupwardstrend=chart-increasing chartdownwardstrend=chart-decreasing
    closedmailboxlowered=closed-mailbox-with-lowered-flag policecarsrevolvinglight=police-car-light
    europeancastle=castle silhouetteohjapan=map-of-japan pinkwallet=purse japaneseangrymask=goblin
    housebuildings=houses bookmarktab=bookmark-tabs mansshirt=t-shirt telephonereceiver2=telephone-receiver
    confetti=confetti-ball makeupbag=clutch-bag heartarrow=heart-with-arrow heartribbon=heart-with-ribbon
"""

# Emoji that are no thing of their own: plain shapes, signs of the zodiac, phases, and double ones.
NO_EMOJI = """
    aquarius aries cancer capricorn gemini leo libra ophiuchus pisces sagittarius scorpio taurus virgo
    black-large-square black-medium-small-square black-medium-square black-small-square black-square-button
    white-large-square white-medium-small-square white-medium-square white-small-square white-square-button
    large-blue-diamond large-orange-diamond small-blue-diamond small-orange-diamond radio-button red-circle
    blue-circle black-circle white-circle heavy-dollar-sign curly-loop double-curly-loop wavy-dash
    part-alternation-mark cross-mark white-question-mark up-down-arrow left-right-arrow
    waning-crescent-moon waxing-crescent-moon waning-gibbous-moon waxing-gibbous-moon last-quarter-moon
    new-moon full-moon last-quarter-moon-face tram-car railway-car green-book orange-book blue-book
    oncoming-taxi oncoming-automobile japanese-post-office e-mail incoming-envelope metro seat tear-off-calendar
    horizontal-traffic-light camera-with-flash watch mountain-cableway suspension-railway
"""

# Emoji that icons call by another name.
ALSO_ICONS = """
    automobile=car fuel-pump=gas-pump wrapped-gift=gift locked=lock unlocked=unlock wastebasket=bin electric-plug=plug
    gem-stone=gem clapper-board=clapperboard artist-palette=palette game-die=dice label=tag desktop-computer=computer
    video-game=controller hourglass-not-done=hourglass inbox-tray=inbox linked-paperclips=paperclip old-key=key
    closed-book=book open-file-folder=folder-open movie-camera=camera-video name-badge=badge page-facing-up=file
    page-with-curl=file musical-note=music hot-beverage=coffee evergreen-tree=tree optical-disk=cd dvd=cd
    computer-disk=cd round-pushpin=pin satellite-antenna=satellite-dish straight-ruler=ruler
    studio-microphone=microphone world-map=map office-building=building cocktail-glass=cocktail fax-machine=fax
    kitchen-knife=knife broken-heart=heart-crack paw-prints=paw raised-fist=fist sun-behind-cloud=cloud-sun
    honeybee=bee musical-keyboard=piano camping=tent left-speech-bubble=chat crescent-moon=moon lady-beetle=bug
    sports-medal=medal military-medal=medal spiral-notepad=notepad black-nib=pen-nib hamburger=burger film-frames=film
    film-projector=projector vertical-traffic-light=traffic-light locked-with-key=lock classical-building=bank
    house-with-garden=house houses=house soft-ice-cream=ice-cream tropical-fish=fish nut-and-bolt=nut
    globe-showing-americas=globe globe-showing-asia-australia=globe globe-showing-europe-africa=globe
    umbrella-with-rain-drops=umbrella snowman-without-snow=snowman high-voltage=lightning telephone-receiver=phone
    face-with-medical-mask=face-mask rugby-football=rugby person-swimming=swimming high-speed-train=train
    deciduous-tree=tree light-rail=train station=train boy=child girl=child memo=note rolled-up-newspaper=newspaper
"""
