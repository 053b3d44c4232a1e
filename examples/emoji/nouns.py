# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The nouns that scenes are made of, and the words for what can be worn, in English and Chinese.

No art and no drawing here: a noun names its art by Unicode code points, which `art.py` looks up.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """Name a thing that can be drawn.

    Attributes:
        singular: English singular.
        plural: English plural.
        chinese: Chinese noun.
        measure: Chinese measure word, as in 一*只*猫.
        art: Code points of its pictures; the first is the most typical one (the face, for an animal with one).
        kinds: What it is: "animal", "food", "vehicle", "plant", "object", "place", "sky"; and what holds for it:
            "head" (a head seen from the front, can wear things), "uncounted" (never drawn in numbers).
    """

    singular: str
    plural: str
    chinese: str
    measure: str
    art: tuple[str, ...]
    kinds: frozenset[str]


@dataclass(frozen=True)
class Wearable:
    """Name a thing that a head can wear, by its English and Chinese words.

    Attributes:
        english: English words with their article, as they follow "wearing".
        chinese: Chinese noun.
        measure: Chinese measure word.
        art: What may be drawn for the word: names of nouns. The word "hat" stands for several.
    """

    english: str
    chinese: str
    measure: str
    art: tuple[str, ...]


# English singular | plural | Chinese | measure word | code points of the art | kinds
_TABLE = """
cat | cats | 猫 | 只 | 1f431 1f408 | animal head
dog | dogs | 狗 | 只 | 1f436 1f415 | animal head
mouse | mice | 老鼠 | 只 | 1f42d 1f401 | animal head
hamster | hamsters | 仓鼠 | 只 | 1f439 | animal head
rabbit | rabbits | 兔子 | 只 | 1f430 1f407 | animal head
fox | foxes | 狐狸 | 只 | 1f98a | animal head
bear | bears | 熊 | 只 | 1f43b | animal head
panda | pandas | 熊猫 | 只 | 1f43c | animal head
polar bear | polar bears | 北极熊 | 只 | 1f43b-200d-2744 | animal head
koala | koalas | 考拉 | 只 | 1f428 | animal head
tiger | tigers | 老虎 | 只 | 1f42f 1f405 | animal head
lion | lions | 狮子 | 头 | 1f981 | animal head
cow | cows | 奶牛 | 头 | 1f42e 1f404 | animal head
pig | pigs | 猪 | 头 | 1f437 1f416 | animal head
frog | frogs | 青蛙 | 只 | 1f438 | animal head
monkey | monkeys | 猴子 | 只 | 1f435 1f412 | animal head
wolf | wolves | 狼 | 只 | 1f43a | animal head
horse | horses | 马 | 匹 | 1f434 1f40e | animal head
unicorn | unicorns | 独角兽 | 只 | 1f984 | animal
dragon | dragons | 龙 | 条 | 1f432 1f409 | animal
penguin | penguins | 企鹅 | 只 | 1f427 | animal head
chick | chicks | 小鸡 | 只 | 1f424 | animal head
chicken | chickens | 鸡 | 只 | 1f414 | animal
raccoon | raccoons | 浣熊 | 只 | 1f99d | animal head
owl | owls | 猫头鹰 | 只 | 1f989 | animal
duck | ducks | 鸭子 | 只 | 1f986 | animal
elephant | elephants | 大象 | 头 | 1f418 | animal
giraffe | giraffes | 长颈鹿 | 只 | 1f992 | animal
sheep | sheep | 绵羊 | 只 | 1f411 | animal
whale | whales | 鲸鱼 | 头 | 1f433 1f40b | animal
dolphin | dolphins | 海豚 | 只 | 1f42c | animal
fish | fish | 鱼 | 条 | 1f41f 1f420 | animal
shark | sharks | 鲨鱼 | 条 | 1f988 | animal
octopus | octopuses | 章鱼 | 只 | 1f419 | animal
crab | crabs | 螃蟹 | 只 | 1f980 | animal
turtle | turtles | 乌龟 | 只 | 1f422 | animal
snake | snakes | 蛇 | 条 | 1f40d | animal
snail | snails | 蜗牛 | 只 | 1f40c | animal
butterfly | butterflies | 蝴蝶 | 只 | 1f98b | animal
bee | bees | 蜜蜂 | 只 | 1f41d | animal
ladybug | ladybugs | 瓢虫 | 只 | 1f41e | animal
dinosaur | dinosaurs | 恐龙 | 只 | 1f995 1f996 | animal
camel | camels | 骆驼 | 头 | 1f42b 1f42a | animal
kangaroo | kangaroos | 袋鼠 | 只 | 1f998 | animal
hedgehog | hedgehogs | 刺猬 | 只 | 1f994 | animal
flamingo | flamingos | 火烈鸟 | 只 | 1f9a9 | animal
parrot | parrots | 鹦鹉 | 只 | 1f99c | animal
bird | birds | 鸟 | 只 | 1f426 | animal
robot | robots | 机器人 | 个 | 1f916 | object head
ghost | ghosts | 幽灵 | 个 | 1f47b | object head
alien | aliens | 外星人 | 个 | 1f47d | object head
skull | skulls | 骷髅头 | 个 | 1f480 | object head
snowman | snowmen | 雪人 | 个 | 26c4 | object
apple | apples | 苹果 | 个 | 1f34e | food
green apple | green apples | 青苹果 | 个 | 1f34f | food
pear | pears | 梨 | 个 | 1f350 | food
orange | oranges | 橙子 | 个 | 1f34a | food
lemon | lemons | 柠檬 | 个 | 1f34b | food
banana | bananas | 香蕉 | 根 | 1f34c | food
watermelon | watermelons | 西瓜 | 块 | 1f349 | food
grape | grapes | 葡萄 | 串 | 1f347 | food uncounted
strawberry | strawberries | 草莓 | 个 | 1f353 | food
cherry | cherries | 樱桃 | 串 | 1f352 | food uncounted
peach | peaches | 桃子 | 个 | 1f351 | food
pineapple | pineapples | 菠萝 | 个 | 1f34d | food
coconut | coconuts | 椰子 | 个 | 1f965 | food
kiwi | kiwis | 猕猴桃 | 个 | 1f95d | food
tomato | tomatoes | 西红柿 | 个 | 1f345 | food
avocado | avocados | 牛油果 | 个 | 1f951 | food
eggplant | eggplants | 茄子 | 个 | 1f346 | food
carrot | carrots | 胡萝卜 | 根 | 1f955 | food
corn | corn cobs | 玉米 | 根 | 1f33d | food
pumpkin | pumpkins | 南瓜灯 | 个 | 1f383 | food
mushroom | mushrooms | 蘑菇 | 个 | 1f344 | plant
bread | loaves of bread | 面包 | 个 | 1f35e | food
croissant | croissants | 牛角面包 | 个 | 1f950 | food
egg | eggs | 鸡蛋 | 个 | 1f95a | food
hamburger | hamburgers | 汉堡 | 个 | 1f354 | food
hot dog | hot dogs | 热狗 | 个 | 1f32d | food
slice of pizza | slices of pizza | 披萨 | 块 | 1f355 | food
sandwich | sandwiches | 三明治 | 个 | 1f96a | food
taco | tacos | 塔可 | 个 | 1f32e | food
donut | donuts | 甜甜圈 | 个 | 1f369 | food
cookie | cookies | 饼干 | 块 | 1f36a | food
cupcake | cupcakes | 纸杯蛋糕 | 个 | 1f9c1 | food
birthday cake | birthday cakes | 生日蛋糕 | 个 | 1f382 | food
ice cream | ice creams | 冰淇淋 | 个 | 1f366 1f368 | food
lollipop | lollipops | 棒棒糖 | 根 | 1f36d | food
candy | candies | 糖果 | 颗 | 1f36c | food
bowl of noodles | bowls of noodles | 面条 | 碗 | 1f35c | food
bowl of rice | bowls of rice | 米饭 | 碗 | 1f35a | food
cup of coffee | cups of coffee | 咖啡 | 杯 | 2615 | food
glass of wine | glasses of wine | 红酒 | 杯 | 1f377 | food
beer | beers | 啤酒 | 杯 | 1f37a | food
teapot | teapots | 茶壶 | 个 | 1fad6 | food
car | cars | 汽车 | 辆 | 1f697 1f698 | vehicle
taxi | taxis | 出租车 | 辆 | 1f695 | vehicle
bus | buses | 公交车 | 辆 | 1f68c | vehicle
police car | police cars | 警车 | 辆 | 1f693 | vehicle
ambulance | ambulances | 救护车 | 辆 | 1f691 | vehicle
fire engine | fire engines | 消防车 | 辆 | 1f692 | vehicle
truck | trucks | 卡车 | 辆 | 1f69a | vehicle
tractor | tractors | 拖拉机 | 辆 | 1f69c | vehicle
bicycle | bicycles | 自行车 | 辆 | 1f6b2 | vehicle
motorcycle | motorcycles | 摩托车 | 辆 | 1f3cd | vehicle
scooter | scooters | 踏板车 | 辆 | 1f6f5 | vehicle
train | trains | 火车 | 列 | 1f682 | vehicle
airplane | airplanes | 飞机 | 架 | 2708 | vehicle
helicopter | helicopters | 直升机 | 架 | 1f681 | vehicle
rocket | rockets | 火箭 | 枚 | 1f680 | vehicle
flying saucer | flying saucers | 飞碟 | 个 | 1f6f8 | vehicle
sailboat | sailboats | 帆船 | 艘 | 26f5 | vehicle
ship | ships | 轮船 | 艘 | 1f6a2 | vehicle
house | houses | 房子 | 座 | 1f3e0 1f3e1 | place
castle | castles | 城堡 | 座 | 1f3f0 | place
tent | tents | 帐篷 | 顶 | 26fa | place
tree | trees | 树 | 棵 | 1f333 | plant
pine tree | pine trees | 松树 | 棵 | 1f332 | plant
palm tree | palm trees | 棕榈树 | 棵 | 1f334 | plant
christmas tree | christmas trees | 圣诞树 | 棵 | 1f384 | plant
cactus | cacti | 仙人掌 | 棵 | 1f335 | plant
flower | flowers | 花 | 朵 | 1f33c 1f338 | plant
rose | roses | 玫瑰 | 朵 | 1f339 | plant
sunflower | sunflowers | 向日葵 | 朵 | 1f33b | plant
tulip | tulips | 郁金香 | 朵 | 1f337 | plant
sun | suns | 太阳 | 个 | 2600 1f31e | sky uncounted
moon | moons | 月亮 | 个 | 1f319 | sky uncounted
star | stars | 星星 | 颗 | 2b50 | sky
cloud | clouds | 云 | 朵 | 2601 | sky
rainbow | rainbows | 彩虹 | 道 | 1f308 | sky
snowflake | snowflakes | 雪花 | 片 | 2744 | sky
fire | fires | 火 | 团 | 1f525 | object uncounted
umbrella | umbrellas | 雨伞 | 把 | 2602 2614 | object
balloon | balloons | 气球 | 个 | 1f388 | object
gift | gifts | 礼物 | 个 | 1f381 | object
heart | hearts | 爱心 | 颗 | 2764 | object
key | keys | 钥匙 | 把 | 1f511 | object
clock | clocks | 闹钟 | 个 | 23f0 | object
book | books | 书 | 本 | 1f4d5 | object
pencil | pencils | 铅笔 | 支 | 270f | object
camera | cameras | 照相机 | 台 | 1f4f7 | object
laptop | laptops | 笔记本电脑 | 台 | 1f4bb | object
phone | phones | 手机 | 部 | 1f4f1 | object
television | televisions | 电视机 | 台 | 1f4fa | object
light bulb | light bulbs | 灯泡 | 个 | 1f4a1 | object
guitar | guitars | 吉他 | 把 | 1f3b8 | object
piano | pianos | 钢琴 | 架 | 1f3b9 | object
drum | drums | 鼓 | 面 | 1f941 | object
trumpet | trumpets | 小号 | 把 | 1f3ba | object
soccer ball | soccer balls | 足球 | 个 | 26bd | object
basketball | basketballs | 篮球 | 个 | 1f3c0 | object
baseball | baseballs | 棒球 | 个 | 26be | object
tennis racket | tennis rackets | 网球拍 | 把 | 1f3be | object
trophy | trophies | 奖杯 | 座 | 1f3c6 | object
teddy bear | teddy bears | 泰迪熊 | 只 | 1f9f8 | object head
backpack | backpacks | 书包 | 个 | 1f392 | object
chair | chairs | 椅子 | 把 | 1fa91 | object
bed | beds | 床 | 张 | 1f6cf | object
door | doors | 门 | 扇 | 1f6aa | object
hammer | hammers | 锤子 | 把 | 1f528 | object
bomb | bombs | 炸弹 | 颗 | 1f4a3 | object
diamond | diamonds | 钻石 | 颗 | 1f48e | object
ring | rings | 戒指 | 枚 | 1f48d | object
shoe | shoes | 鞋 | 只 | 1f45f | object
t-shirt | t-shirts | T恤 | 件 | 1f455 | object
dress | dresses | 裙子 | 条 | 1f457 | object
bell | bells | 铃铛 | 个 | 1f514 | object
candle | candles | 蜡烛 | 根 | 1f56f | object
telescope | telescopes | 望远镜 | 台 | 1f52d | object
crown | crowns | 皇冠 | 顶 | 1f451 | object
top hat | top hats | 礼帽 | 顶 | 1f3a9 | object
straw hat | straw hats | 草帽 | 顶 | 1f452 | object
cap | caps | 鸭舌帽 | 顶 | 1f9e2 | object
graduation cap | graduation caps | 学士帽 | 顶 | 1f393 | object
helmet | helmets | 头盔 | 顶 | 26d1 1fa96 | object
pair of glasses | pairs of glasses | 眼镜 | 副 | 1f453 | object
pair of sunglasses | pairs of sunglasses | 墨镜 | 副 | 1f576 | object"""


def _parse(table: str) -> tuple[Noun, ...]:
    nouns = []
    for line in table.strip().splitlines():
        singular, plural, chinese, measure, art, kinds = (cell.strip() for cell in line.split("|"))
        nouns.append(Noun(singular, plural, chinese, measure, tuple(art.split()), frozenset(kinds.split())))
    return tuple(nouns)


NOUNS = _parse(_TABLE)
NOUN_BY_NAME = {noun.singular: noun for noun in NOUNS}

HATS = {
    "hat": Wearable("a hat", "帽子", "顶", ("top hat", "straw hat", "cap")),
    "top hat": Wearable("a top hat", "礼帽", "顶", ("top hat",)),
    "straw hat": Wearable("a straw hat", "草帽", "顶", ("straw hat",)),
    "cap": Wearable("a cap", "鸭舌帽", "顶", ("cap",)),
    "crown": Wearable("a crown", "皇冠", "顶", ("crown",)),
    "graduation cap": Wearable("a graduation cap", "学士帽", "顶", ("graduation cap",)),
    "helmet": Wearable("a helmet", "头盔", "顶", ("helmet",)),
}
GLASSES = {
    "glasses": Wearable("glasses", "眼镜", "副", ("pair of glasses",)),
    "sunglasses": Wearable("sunglasses", "墨镜", "副", ("pair of sunglasses",)),
}

# Heights of the eyes in the art of a head, as fractions of its height from the top: where glasses sit.
# A head without an entry is drawn from the side or sits off its picture's middle, and wears nothing.
EYE_HEIGHT = {
    "cat": 0.52,
    "dog": 0.43,
    "mouse": 0.62,
    "hamster": 0.5,
    "rabbit": 0.66,
    "fox": 0.6,
    "bear": 0.45,
    "panda": 0.47,
    "polar bear": 0.45,
    "koala": 0.43,
    "tiger": 0.45,
    "lion": 0.42,
    "cow": 0.4,
    "pig": 0.45,
    "frog": 0.2,
    "monkey": 0.38,
    "wolf": 0.52,
    "penguin": 0.24,
    "raccoon": 0.5,
    "robot": 0.45,
    "ghost": 0.3,
    "alien": 0.52,
    "skull": 0.52,
    "teddy bear": 0.2,
}

# Nouns whose art has one main hue, so that turning that hue gives a believable thing of another color.
RECOLORABLE = (
    "car", "apple", "balloon", "backpack", "dress", "shoe", "rose", "tulip", "fish", "bird", "butterfly", "guitar",
    "cap", "teapot", "strawberry", "mushroom", "star", "bell", "key",
)  # fmt: skip

# Nouns that exist in several colors as art of their own.
COLORED_ART = {
    "heart": {
        "red": "2764",
        "orange": "1f9e1",
        "yellow": "1f49b",
        "green": "1f49a",
        "blue": "1f499",
        "purple": "1f49c",
        "black": "1f5a4",
        "white": "1f90d",
        "pink": "1fa77",
    },
    "book": {"red": "1f4d5", "green": "1f4d7", "blue": "1f4d8", "orange": "1f4d9"},
}

HOLDABLE = (
    "balloon", "flower", "rose", "umbrella", "gift", "trophy", "lollipop", "guitar", "sunflower", "carrot", "candle",
    "key", "ice cream", "camera", "book", "heart",
)  # fmt: skip
