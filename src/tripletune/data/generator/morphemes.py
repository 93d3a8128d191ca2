"""The pieces that names are put together from, and the closed lists of values.

A piece that stands twice in a list is drawn twice as often.
"""

from __future__ import annotations

__all__ = [
    "ADJECTIVES",
    "ALBUM_PATTERNS",
    "AWARD_NOUNS",
    "BOOK_PATTERNS",
    "BRAND_CHARACTERS",
    "CITY_SUFFIXES",
    "COMPANY_SUFFIXES",
    "COMPOUND_SURNAMES",
    "COUNTRIES",
    "COUNTRY_SUFFIXES",
    "ETHNIC_GROUPS",
    "FILM_PATTERNS",
    "GIVEN_CHARACTERS",
    "INDUSTRIES",
    "LANGUAGES",
    "LATIN_SYLLABLES",
    "MEDIA_SUFFIXES",
    "PLACE_ENDS",
    "PLACE_STARTS",
    "PRODUCT_NOUNS",
    "PROFESSIONS",
    "PUBLISHER_SUFFIXES",
    "SCHOOL_SUFFIXES",
    "SONG_PATTERNS",
    "SURNAMES",
    "TITLE_NOUNS",
    "TRANSLITERATION_CHARACTERS",
    "VERBS",
]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SURNAMES = tuple(
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏"
    "吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱"
    "严覃武戴莫孔向汤温康施文牛樊葛邢安齐易乔伍庞颜倪庄聂章鲁岳翟殷詹申欧耿关兰焦俞左柳"
)
COMPOUND_SURNAMES = ("欧阳", "上官", "司马", "诸葛", "东方", "慕容", "夏侯", "皇甫", "司徒", "令狐")
GIVEN_CHARACTERS = tuple(
    "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉萍红玲芬燕彬凤洁梅琳素云莲真环雪荣爱妹香月"
    "莺媛瑞凡佳嘉琼勤珍贞莉兰菊岚茜颖露瑶怡婵雁蓓纨仪荷丹蓉眉君琴蕊薇菁梦婧馨影瑾怀柔竹霭凝晓欢霄"
    "枫芸菲寒欣滢伊亚宜可姬舒悠昭冰爽琬茗羽希宁飘育滢馥琦晴俊峰毅凯健世广志义兴良海山仁波宁贵福生"
    "龙元全国胜学祥才发武新利清飞彬富顺信子奇安岩中茂进林有坚和彪博诚先敬震振壮会思群豪心邦承乐绍"
    "功松善厚庆磊民友裕河哲江浩亮政谦亨固之轮翰朗伯宏言若鸣朋斌梁栋维启克伦翔旭鹏泽晨辰士以建家致"
    "树炎德行时泰盛雄琛钧冠策腾楠榕航弘宇轩辉达瀚文天"
)
TRANSLITERATION_CHARACTERS = tuple(
    "阿艾安巴贝比波布查达德迪杜尔法菲费弗戈格哈海赫霍基加贾杰卡凯科克拉莱兰雷里利林卢鲁罗洛马迈曼"
    "梅蒙米莫姆纳内尼诺帕佩皮普奇切琼萨塞沙舍史斯苏塔泰特托瓦维温沃西希谢辛雅伊约扎泽朱"
)
BRAND_CHARACTERS = tuple(
    "星海天云瑞华盛泰恒远新创智博达信诚嘉宏昌隆鑫源丰裕康宁安和顺通联合众益利晨曦光辉明朗晶宝金银"
    "玉龙凤鹏腾飞翔蓝青绿橙紫红黑白方圆锐捷优美乐佳欣悦澜涛波润泽沐禾谷森林松柏枫桐百千万亿启航领"
    "先"
)
LATIN_SYLLABLES = _words(
    "ba be co da del do fi ga in ka ki la li lo lux ma mi mo na ne no nova or pa ra ri ro sa "
    "so ta te ti to va ve vi vo xi ya ze zo"
)
PLACE_STARTS = tuple(
    "临清安平永新东西南北上下大小长高广云石金银玉青白黄红紫海江河湖溪泉山岭峰林松柳桃梅兰竹龙凤虎"
    "鹤鹿马牛太天光明宁康乐福昌兴隆盛丰富庆吉文武德义仁和顺通达远望沙浦港湾关古桐柏枫荷莲曲双三九"
    "百万"
)
PLACE_ENDS = tuple(
    "海江河湖溪泉山岭峰林阳阴州城陵丘原川谷口坪坝塘池洲岛湾港浦关桥镇庄堡寨屯集营台楼坊里乡安平宁"
    "康乐福昌兴隆盛丰庆吉德义和顺通远水源田野沙石头冈坡塬滩津渡门都宾"
)
CITY_SUFFIXES = ("市", "市", "市", "县", "县", "区", "镇", "州", "乡", "村", "", "")
COUNTRY_SUFFIXES = ("共和国", "王国", "联邦", "公国", "群岛", "尼亚", "兰", "斯坦")
INDUSTRIES = _words(
    "科技 信息技术 网络 软件 电子 通信 生物 医药 食品 饮料 服饰 化工 能源 电力 环保 建材 建筑 "
    "地产 物流 航空 汽车 机械 重工 钢铁 矿业 石油 农业 牧业 水产 纺织 家具 玩具 传媒 影业 文化 "
    "广告 教育 旅游 酒店 餐饮 金融 保险 证券 投资 咨询 电器 光电 半导体 新材料 机器人 游戏 "
    "音乐 体育 医疗 制药 乳业 茶业 珠宝"
)
COMPANY_SUFFIXES = (
    "公司",
    "公司",
    "有限公司",
    "有限公司",
    "股份有限公司",
    "集团",
    "集团",
    "集团公司",
    "有限责任公司",
    "",
    "",
    "控股",
)
SCHOOL_SUFFIXES = _words(
    "大学 大学 大学 学院 学院 师范大学 理工大学 工业大学 农业大学 医科大学 财经大学 政法大学 "
    "外国语大学 交通大学 科技大学 艺术学院 音乐学院 戏剧学院 体育学院 美术学院 职业技术学院 "
    "电影学院 第一中学 第二中学 实验中学 中学"
)
PUBLISHER_SUFFIXES = _words(
    "出版社 出版社 文艺出版社 人民出版社 教育出版社 大学出版社 少儿出版社 科学出版社 "
    "美术出版社 古籍出版社 书局 出版集团 书店"
)
MEDIA_SUFFIXES = _words("日报 晚报 新闻网 电视台 周刊 都市报 晨报 商报 广播电台 青年报")
AWARD_NOUNS = _words(
    "奖 奖 文学奖 电影奖 音乐奖 科学奖 最佳导演奖 最佳男主角奖 最佳女主角奖 最佳编剧奖 "
    "最佳歌手奖 新人奖 终身成就奖 杰出贡献奖 诗歌奖 小说奖 勋章 奖章 金奖 银奖 建筑奖 设计奖 "
    "医学奖 物理学奖 化学奖 戏剧奖 新闻奖"
)
PRODUCT_NOUNS = _words(
    "手机 平板电脑 智能手表 耳机 音箱 电视 冰箱 洗衣机 空调 电饭煲 电动汽车 轿车 越野车 自行车 "
    "摩托车 拖拉机 无人机 机器人 打印机 投影仪 路由器 浏览器 输入法 操作系统 芯片 显示器 键盘 "
    "相机 牛奶 酸奶 饼干 方便面 矿泉水 果汁 啤酒 白酒 红茶 绿茶 咖啡 巧克力 香皂 洗发水 牙膏 "
    "面膜 跑鞋 羽绒服 衬衫 沙发 床垫 台灯 感冒灵 止痛片 疫苗"
)
COUNTRIES = _words(
    "中国 美国 日本 韩国 英国 法国 德国 意大利 西班牙 葡萄牙 荷兰 比利时 瑞士 瑞典 挪威 丹麦 "
    "芬兰 冰岛 波兰 捷克 匈牙利 奥地利 希腊 俄罗斯 乌克兰 土耳其 印度 泰国 越南 新加坡 "
    "马来西亚 印度尼西亚 菲律宾 澳大利亚 新西兰 加拿大 墨西哥 巴西 阿根廷 智利 秘鲁 埃及 南非 "
    "肯尼亚 摩洛哥 尼日利亚 沙特阿拉伯 伊朗 以色列 蒙古国 哈萨克斯坦"
)
LANGUAGES = _words(
    "汉语 英语 法语 德语 日语 韩语 西班牙语 葡萄牙语 俄语 阿拉伯语 意大利语 荷兰语 瑞典语 "
    "波兰语 希腊语 土耳其语 泰语 越南语 马来语 印地语"
)
PROFESSIONS = _words(
    "演员 作家 诗人 画家 书法家 雕塑家 摄影师 建筑师 设计师 工程师 科学家 数学家 物理学家 "
    "化学家 生物学家 历史学家 哲学家 经济学家 医生 护士 律师 法官 记者 编辑 主持人 教师 教授 "
    "企业家 商人 银行家 程序员 飞行员 宇航员 军人 警察 消防员 厨师 农民 工人 司机 翻译家 "
    "钢琴家 小提琴家 指挥家 舞蹈家 歌唱家 篮球运动员 足球运动员 乒乓球运动员 游泳运动员 "
    "田径运动员 棋手 裁判 教练 漫画家 魔术师 模特 外交官 考古学家"
)
ETHNIC_GROUPS = _words(
    "汉族 回族 满族 蒙古族 藏族 壮族 苗族 彝族 布依族 朝鲜族 侗族 瑶族 白族 土家族 哈尼族 傣族 "
    "黎族 傈僳族 畲族 高山族 水族 羌族"
)
ADJECTIVES = _words(
    "遥远 沉默 温柔 孤独 明亮 失落 漫长 寂静 透明 古老 金色 蓝色 白色 黑色 红色 最后 最初 消失 "
    "隐秘 燃烧 流浪 迟到 冰冷 盛开 逆行 无声 倾斜 破碎 永恒 陌生 勇敢 平凡 清醒 沉睡 飞翔 奔跑 "
    "空荡 潮湿 甜蜜 锋利 看不见 回不去 未完成 会唱歌 不说话 被遗忘"
)
TITLE_NOUNS = _words(
    "河流 山谷 海岸 灯塔 雪原 草原 沙漠 森林 花园 街道 车站 码头 城堡 村庄 小镇 屋顶 窗外 月光 "
    "星空 黎明 黄昏 午夜 春天 夏天 秋天 冬天 雨季 风暴 火焰 尘埃 影子 回声 钟声 歌谣 信件 日记 "
    "地图 钥匙 镜子 钢琴 风筝 纸船 列车 飞鸟 鲸鱼 蝴蝶 白马 玫瑰 麦田 橘子 石榴 茶馆 书店 剧院 "
    "学校 医院 工厂 边境 孤岛 彼岸 童年 青春 爱情 婚礼 约会 秘密 谎言 真相 梦境 记忆 命运 誓言 "
    "战士 侦探 猎人 诗人 信使 邻居 旅人 少年 姑娘 祖父 母亲 兄弟 王朝 帝国 江湖 传奇 往事 前夜 "
    "倒影 余温 长夜 远方 人间 岁月"
)
VERBS = _words(
    "寻找 告别 等待 守望 穿过 重返 遇见 拥抱 追赶 听见 记住 点亮 走进 离开 梦见 写给 唱给 属于 "
    "爱上 想念 越过 忘记 回到 仰望"
)
# A: adjective, N: noun, V: verb, P: place of two characters, G: one given character.
BOOK_PATTERNS = _words(
    "A的N N与N N里的N VA的人 N与N简史 PN P纪事 A的N与N V那个N N和它的N PGN PN与N V在PN A的GN"
)
FILM_PATTERNS = _words("A的N N之N VN PN P往事 PN行动 G家N V之N VA的N 大PN NN PGN A的PN N在P")
SONG_PATTERNS = _words("A的N VN N的N VA的N 给GN的歌 N里的N PN 我在PVN NGG 再VAN PGN V在P GGN")
ALBUM_PATTERNS = _words("A的N NN VN N之N PN VA之N NN集 G的N GGN P的N VPN GG的N")
