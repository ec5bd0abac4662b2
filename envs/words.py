"""Five-letter English words, the most familiar hundred first, for the tasks with words. Adding words raises their versions."""

WORDS = tuple(
    """
    about apple beach black bread brown chair clean clock cloud dance dream drink earth eight enter field first floor
    fruit ghost glass grape green heart horse house juice knife large laugh lemon light lunch magic money month mouse
    music night ocean puppy paint paper party phone piano plant plate point queen quick radio river robot round salad
    scale shirt sleep small smile snake spoon stone storm story sugar sweet table teach thank tiger today tooth tower
    train truck uncle under video voice watch water whale wheel white woman world write young zebra
    actor adult agree alarm album alone anger angle arrow award bacon badge baker basic bench berry birth blade blank
    blind block board bonus brain brave brick bride brief bring broad brush build cabin cable camel candy cargo carry
    catch cause chain chalk charm chase cheap check cheek cheer chess chest child civil claim class climb close coach
    coast count court cover craft crane crash cream crime cross crowd curve cycle daily death delay depth devil diary
    ditch doubt draft drama dress drive eager eagle elbow empty enemy enjoy equal error event exact extra faith false
    fault fence fever fight final flame flash fleet flock flour fluid focus force frame fresh front frost giant given
    globe glory grace grade grain grand grant grass great group guard guess guest guide habit happy harsh heavy hello
    honey honor hotel human humor image index inner issue jelly jewel joint judge knock label labor layer learn lever
    limit liver local logic loose lucky maple march match maybe mayor medal metal minor mixed model motor mount movie
    nerve noble noise north novel nurse offer olive onion order other outer owner panel panic peach pearl pilot pitch
    place plain plane power press price pride prize proof proud pupil quiet quite range rapid reach ready right rough
    route royal rural scene score sense serve seven shade shake shape share sharp sheep sheet shelf shell shine shock
    shoot shore short sight skill skirt slice slide smart smell smoke solid sound south space spare speak speed spend
    spice sport staff stage stair stand start state steam steel stick stock store straw study style swing taste thick
    thing think third throw title topic total touch tough track trade treat trial trick trust truth twice union unite
    upper urban usual valid value visit waste wagon weigh worry worth wound wrist yield youth
    """.split()  # noqa: SIM905
)
