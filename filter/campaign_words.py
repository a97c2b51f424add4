"""Closed lists of words by which a template is known whatever its values are: data for `campaign`, no behaviour.

Words are lower-case, of all languages together: a word that two languages share does no harm. What is listed decides
which messages share a campaign, so that any change here is an incompatible change: decisions made before would no
longer be found.

`IGNORED` says nothing of a template: it is in every text, or follows the gender and number of a value (the article
before a product, the participle after a name, prepositions inside names of places and products). `VARYING` stands for a
date or number as digits do. `COMMON` are the other words of grammar: they keep their place whatever a sentence is
about. `OFFERS` promote and name no product; `BUSINESS` is what messages of companies are about besides; the same by the
first five letters for languages that inflect (`..._STEMS`). `UNSPACED` is all of these for Chinese and Japanese, and
`UNSPACED_OFFERS` those that promote. `GREETINGS` begin lines that say no more than a name.
"""

# ruff: noqa: RUF001 - words of other scripts are no mistakes

from typing import Final


def _words(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


IGNORED: Final = _words(
    # English: articles, forms of be, have and do that follow a number, connectors inside names, salutations
    "a an the is are was were has have it they them its their this these that those and or of in on at to for",
    "with by from upon under over x s t re ll ve d m dear hi hello hey there mr mrs ms miss mx dr prof sir madam",
    "item items first second third fourth fifth",
    # German
    "vor der die das den dem des ein eine einen einem einer eines ist sind war waren wird werden wurde wurden hat",
    "haben er sie es ihm ihn ihr ihre ihren ihrem ihrer ihres dein deine deinen deinem deiner und oder von vom zu",
    "zum zur in im an am auf aus bei mit für ob über unter liebe lieber liebes sehr geehrte geehrter geehrtes",
    "hallo guten tag herr herrn frau diese dieser dieses diesen diesem",
    # French
    "le la les l un une des du de d au aux et ou en à dans sur sous avec pour par chez est sont a ont été sera",
    "seront il elle ils elles lui leur leurs votre vos ton ta tes son sa ses ce cet cette ces cher chère chers",
    "chères bonjour salut madame monsieur mme m",
    # Spanish, Portuguese, Italian
    "el los las lo un una unos unas y e o u en con por para sin es son está están ha han fue fueron será serán su",
    "sus tu tus este esta estos estas ese esa del al hola estimado estimada querido querida señor señora sr sra",
    "don doña os as um uma da do dos das no na nos nas com em são foi foram seu sua seus suas caro cara prezado",
    "prezada olá gli i uno di del della dei delle degli al alla ai alle dal dalla nel nella col sul sulla è suo",
    "sua tuo tua gentile ciao",
    # Dutch
    "het een van der te ten ter voor op bij met is zijn werd werden heeft hebben beste geachte hallo heer mevrouw",
    "uw je",
    # Polish
    "w we z ze na do od po dla i oraz o u jest są został została zostało zostały był była było były pan pani pana",
    "panią panu państwo państwa pański pańska twój twoja twoje twoją twojego swój swoją szanowny szanowna drogi",
    "droga cześć witaj dzień dobry ten ta to te tego tej",
    # Turkish
    "bir bu şu ve ile için sayın merhaba sevgili bey hanım",
    # Russian
    "в во на с со к ко и или от до для по из у о об за был была было были будет будут ваш ваша ваше ваши вашу",
    "вашего вашей вашему вашем вашим вашими ваших он она оно они его её ее их им ему ей этот эта это эти",
    "уважаемый уважаемая уважаемые дорогой дорогая здравствуйте привет добрый день господин госпожа",
    # Greek
    "ο η το οι τα του της των τον την τους τις στο στη στην στον στα στις στους ένας ένα μια μία και ή από με για",
    "σε είναι ήταν έχει έχουν αυτό αυτή αυτός αγαπητέ αγαπητή αξιότιμε αξιότιμη γεια καλημέρα κύριε κυρία",
    # Arabic, Hindi
    "و في من على إلى عن مع هو هي هذا هذه عزيزي عزيزتي السيد السيدة مرحبا أهلا का की के को में से पर है हैं और या",
    "यह ये वह था थी थे ने प्रिय नमस्ते श्री श्रीमती जी",
)

GREETINGS: Final = _words(
    "dear hi hello hey good liebe lieber liebes sehr hallo guten cher chère chers chères bonjour salut madame monsieur",
    "hola estimado estimada querido querida caro cara prezado prezada olá gentile ciao beste geachte szanowny szanowna",
    "drogi droga cześć witaj dzień sayın merhaba sevgili selam уважаемый уважаемая уважаемые дорогой дорогая",
    "здравствуйте привет добрый αγαπητέ αγαπητή αξιότιμε αξιότιμη γεια καλημέρα عزيزي عزيزتي السيد السيدة مرحبا أهلا",
    "प्रिय नमस्ते",
)

VARYING: Final = _words(
    # numbers and days
    "two three four five seven eight nine ten eleven twelve twenty thirty fifty hundred thousand",
    "today tomorrow yesterday tonight zwei drei vier fünf sechs sieben acht neun zehn elf",
    "zwölf hundert tausend heute morgen gestern deux trois quatre cinq huit neuf dix onze douze mille",
    "aujourd hui demain hier dos tres cuatro cinco seis siete ocho nueve diez doce cien hoy mañana ayer",
    "quattro cinque sette dieci dodici oggi domani ieri dois três quatro sete oito dez",
    "hoje twee drie vijf zes zeven negen tien twaalf vandaag morgen gisteren dwa dwie trzy cztery pięć sześć",
    "siedem osiem dziewięć dziesięć dzisiaj jutro wczoraj iki üç dört beş altı yedi sekiz dokuz bugün yarın",
    "dün два две три четыре пять шесть семь восемь девять десять сегодня завтра вчера δύο τρεις τρία τέσσερα",
    "πέντε έξι επτά οκτώ εννέα δέκα σήμερα αύριο χθες",
    # months and days of the week
    "january february april june july august september october november december monday tuesday",
    "wednesday thursday friday saturday sunday januar februar märz juni juli oktober dezember montag dienstag",
    "mittwoch donnerstag freitag samstag sonntag janvier février mars avril juin juillet août septembre octobre",
    "novembre décembre lundi mardi mercredi jeudi vendredi samedi dimanche enero febrero marzo abril mayo junio",
    "julio agosto septiembre octubre noviembre diciembre lunes martes miércoles jueves viernes sábado domingo",
    "janeiro fevereiro março maio junho julho setembro outubro novembro dezembro gennaio febbraio aprile maggio",
    "giugno luglio settembre ottobre dicembre lunedì martedì mercoledì giovedì venerdì sabato domenica januari",
    "februari maart mei augustus maandag dinsdag woensdag donderdag vrijdag zaterdag zondag stycznia lutego marca",
    "kwietnia maja czerwca lipca sierpnia września października listopada grudnia poniedziałek wtorek środa środę",
    "czwartek piątek sobota sobotę niedziela niedzielę ocak şubat nisan mayıs haziran temmuz ağustos eylül",
    "ekim kasım aralık pazartesi salı çarşamba perşembe cuma cumartesi pazar января февраля марта апреля мая июня",
    "июля августа сентября октября ноября декабря понедельник вторник среда среду четверг пятница пятницу суббота",
    "субботу воскресенье ιανουαρίου φεβρουαρίου μαρτίου απριλίου μαΐου ιουνίου ιουλίου αυγούστου σεπτεμβρίου",
    "οκτωβρίου νοεμβρίου δεκεμβρίου δευτέρα τρίτη τετάρτη πέμπτη παρασκευή σάββατο κυριακή يناير فبراير مارس",
    "أبريل مايو يونيو يوليو أغسطس سبتمبر أكتوبر نوفمبر ديسمبر الأحد الاثنين الثلاثاء الأربعاء الخميس الجمعة السبت",
    "اليوم غدا أمس जनवरी फरवरी मार्च अप्रैल मई जून जुलाई अगस्त सितंबर अक्टूबर नवंबर दिसंबर आज कल",
)

COMMON: Final = (
    _words(
        # English
        "i you your yours we us our ours my me he she who whom whose which what when where why how all any every each",
        "some no not only just also even still already yet again now soon here then than as if unless because since",
        "until before after during between through within without about against into out off up down per via will",
        "would can could shall should may might must do does did done be been being had having get got give let make",
        "made take want need please thank thanks sorry so but more most less least very too much many few other",
        "another same such both either one while whenever whether never always ever once more",
        # German
        "ich du wir uns unser unsere unseren unserem unserer unseres mir mich euch man wer was wann wo wie warum",
        "welche kein keine keinen nicht nur auch noch schon bereits wieder jetzt bald hier dann als wenn falls weil",
        "seit bis nach während zwischen durch ohne gegen um kann können könnte sollte muss müssen darf dürfen",
        "möchte möchten will wollen bitte danke vielen dank leider aber mehr sehr alle alles jede jeden jeder etwas",
        "einfach damit dass sobald dazu dafür davon ab sein gerne gern",
        # French
        "je tu nous on notre nos mon ma mes qui que quoi dont quand où comment pourquoi ne pas plus rien aussi encore",
        "déjà maintenant bientôt ici si car depuis avant après pendant entre sans contre vous êtes avez pouvez devez",
        "souhaitez merci mais très tout toute tous toutes chaque comme afin lors dès jusqu cela être avoir",
        "faire peut doit",
        # Spanish, Portuguese, Italian
        "yo nosotros nuestro nuestra nuestros nuestras mi que qué quien cuando dónde donde cómo como no ya también",
        "todavía ahora pronto aquí si porque desde hasta antes después durante entre sobre contra puede puedes debe",
        "debes quiere gracias pero más muy todo toda todos todas cada hemos le les te se nos nós nosso nossa não já",
        "também ainda agora aqui até depois antes pode você obrigado mais muito cada noi nostro nostra non già anche",
        "ancora adesso qui perché dopo prima puoi può grazie ma più molto tutto tutti ogni",
        # Dutch
        "wij ons onze u niet ook nog al nu hier als omdat sinds tot na tijdens tussen door zonder kunt kan moet wilt",
        "graag bedankt maar meer alle elke over",
        # Polish
        "my nas nam nasz nasza nasze naszą naszych ty ci cię kto co kiedy gdzie jak dlaczego nie tak tylko też także",
        "jeszcze już znowu teraz wkrótce tutaj jeśli jeżeli ponieważ przed podczas między przez bez może możesz można",
        "należy proszę prosimy dziękujemy ale bardzo wszystkie każdy się aby że",
        # Turkish
        "biz bize bizim siz size sizin sizi ne zaman nerede nasıl değil sadece ayrıca henüz artık şimdi yakında",
        "burada eğer çünkü önce sonra kadar arasında lütfen teşekkür ederiz ama daha çok tüm her da de olarak gibi",
        "göre üzere ya",
        # Russian
        "я мы нас нам наш наша наше наши нашего нашей нашем вы вас вам вами кто что когда где как почему не только",
        "также тоже ещё уже снова теперь сейчас скоро здесь если потому перед после во время между через без можете",
        "можно нужно пожалуйста спасибо но более очень все всё каждый чтобы при",
        # Greek
        "εμείς μας εσείς σας ποιος τι πότε πού πώς δεν μην μόνο επίσης ακόμα ήδη ξανά τώρα σύντομα εδώ αν εάν επειδή",
        "πριν μετά κατά μεταξύ χωρίς μέχρι μπορείτε πρέπει παρακαλούμε ευχαριστούμε αλλά πιο πολύ όλα όλες κάθε θα να",
        "που ως",
        # Arabic, Hindi
        "نحن لنا لدينا أنت لك لكم الذي التي ما متى أين كيف لا لم لن ليس فقط أيضا قد لقد الآن قريبا هنا إذا لأن منذ",
        "حتى قبل بعد خلال بين عبر دون يمكنك يرجى شكرا لكن أكثر جدا كل تم يتم سيتم أن أو हम हमें हमारा हमारी हमारे आप",
        "आपका आपकी आपके कौन क्या कब कहाँ कैसे क्यों नहीं केवल भी अभी फिर अब जल्द यहाँ यदि अगर क्योंकि पहले बाद दौरान",
        "बीच बिना तक कृपया धन्यवाद लेकिन अधिक बहुत सभी हर कर करें किया गया गई गए सकते",
    )
    - IGNORED
)

OFFERS: Final = _words(
    # English
    "offer offers offering deal deals sale save saving savings discount discounts",
    "free reward rewards cashback win prize draw exclusive exclusively earn enjoy",
    "discover explore introducing meet unlock upgrade join shop buy try claim grab hurry chance miss treat",
    "launch launched invite invited subscribe",
    "switch apply download refer",
    "friend friends donate donation appeal feedback recommend recommended opt unsubscribe",
    "bargain",
    # German
    "angebot angebote angeboten aktion rabatt rabatte gratis kostenlos",
    "kostenlose prämie prämien gewinnen gewinnspiel exklusiv exklusive sparen",
    "spare sparvorteil vorteil vorteile entdecken entdecke sichern sichere jetzt nutzen",
    "genießen empfehlen empfehlung",
    # French
    "offre offres promo promotion promotions solde soldes remise remises réduction réductions gratuit gratuite",
    "gratuits gagner gagnez exclusif exclusive profitez découvrez",
    "économisez avantage avantages essayez invitez parrainez",
    # Spanish, Portuguese, Italian
    "oferta ofertas descuento descuentos rebajas gratis gana gane sorteo exclusivo",
    "exclusiva aprovecha aproveche descubre descubra ahorra ahorre ventaja ventajas",
    "invita desconto descontos grátis promoção aproveite sconto sconti offerta",
    "offerte gratuito gratuita scopri approfitta risparmia",
    # Dutch
    "aanbieding aanbiedingen korting gratis winnen ontdek bespaar voordeel",
    "",
)

BUSINESS: Final = _words(
    # English
    "account balance statement bill invoice payment payments pay paid due overdue direct debit refund refunded",
    "order orders ordered delivery deliver delivered dispatched shipped shipping parcel tracking collect",
    "collection return returns appointment booking booked reservation confirm confirmed confirmation cancel",
    "cancelled change changed changes update updated password reset security secure verify login sign suspicious",
    "fraud blocked expire expires expired expiry renew renewal terms conditions policy notice maintenance",
    "interruption outage report receipt card cards pin limit contract service services customer ready available",
    "view read reply call contact register registered ticket flight meter code special selected extra double ends",
    "last event rate rates interest app survey review marketing preferences consent half price prices",
    # German
    "einwilligung abmelden konto kontoauszug rechnung rechnungen zahlung zahlungen fällig mahnung bestellung",
    "lieferung geliefert versandt paket sendung termin buchung bestätigt bestätigung stornierung geändert änderung",
    "änderungen passwort zurücksetzen sicherheit vertrag kündigung verlängerung bedingungen karte zähler",
    "zählerstand ablesung erstattung preise",
    # French
    "taux lettre abonnement compte relevé facture paiement échéance commande livraison livré livrée expédié",
    "expédiée colis suivi rendez-vous réservation confirmé confirmée confirmation annulé annulation modification",
    "modifié mot passe sécurité contrat remboursement carte conditions compteur résiliation reçu",
    # Spanish, Portuguese, Italian
    "interés boletín suscripción cuenta saldo extracto factura pago recibo vencimiento pedido envío enviado",
    "entregado entrega paquete cita reserva confirmada confirmado confirmación cancelada cambio cambios contraseña",
    "seguridad contrato devolución reembolso tarjeta condiciones contador conta fatura pagamento encomenda",
    "entregue palavra conto fattura ordine consegna spedito pacco appuntamento prenotazione conferma",
    # Dutch
    "rekening factuur betaling bestelling levering bezorgd pakket afspraak boeking bevestiging wachtwoord",
    # what may be offered, and may as well name a product that somebody ordered
    "voucher vouchers coupon coupons gift gifts bonus points limited new latest best better great perfect",
    "favourite invitation membership premium platinum loan loans mortgage mortgages insurance insure cover invest",
    "newsletter cheap cheaper lowest bestselling gutschein gutscheine gutscheincode geschenk geschenke punkte neu",
    "neue neuen neuer neues einladung zins zinsen kredit baufinanzierung versicherung schutz cadeau cadeaux prime",
    "jeu nouveau nouvelle nouveautés crédit prêt assurance regalo regalos puntos premio nuevo nueva nuevos nuevas",
    "préstamo seguro hipoteca novo nova nuovo nuova punten nieuw nieuwe verzekering hypotheek",
)

OFFER_STEMS: Final = _words(
    # Polish
    "ofert rabat promo zniżk znizk bezpł darmo nagro wygra odkry skorz oszcz korzy",
    "zapro",
    # Turkish
    "indir kampa fırsa kazan çekil özel keşfe avant davet",
    # Russian
    "скидк акция акции предл беспл выигр розыг экскл воспо",
    "эконо выгод пригл",
    # Greek
    "προσφ έκπτω εκπτώ δωρεά κερδί κερδίσ κλήρω αποκλ ανακα εξοικ όφελο οφέλη πρόσκ",
    "επιτό",
    # Arabic, Hindi
    "عرض عروض العرض خصم خصوم تخفيض مجان مجانا اربح سحب حصري اكتشف وفر توفير دعوة",
    "ऑफ़र ऑफर छूट मुफ़्त मुफ्त जीतें खोजें बचत लाभ",
)

BUSINESS_STEMS: Final = _words(
    # Polish
    "konto konta kontu rachu faktu płatn zamów dosta przes paczk wizyt rezer potwi anulo zmian hasło hasła bezpi",
    "umowa umowy zwrot karta karty licze opłat",
    # Turkish
    "hesap fatur ödeme sipar tesli kargo paket rande rezer onayl iptal değiş şifre güven sözle iade kartı kart",
    "tarif",
    # Russian
    "рассы счёт счета счете выпис оплат плате заказ доста посыл отпра запис брони подтв отмен измен парол безоп",
    "догов возвр карта карты карте тариф показ счётч квита",
    # Greek
    "λογαρ τιμολ πληρω παραγ παράδ αποστ δέμα ραντε κράτη επιβε ακύρω αλλαγ κωδικ συμβό επιστ κάρτα μετρη",
    # Arabic, Hindi
    "حساب حسابك كشف فاتور دفع الدفع سداد طلب طلبك الطلب توصيل شحن شحنة الشحن طرد موعد موعدك حجز حجزك تأكيد إلغاء",
    "تغيير كلمة المرو مرور أمان عقد استرد بطاقة بطاقت खाता खाते बिल भुगता ऑर्डर डिलीव पैकेज बुकिंग पुष्टि रद्द",
    "बदलाव पासवर सुरक् अनुबं धनवाप कार्ड",
    # what may be offered, and may as well name a product that somebody ordered
    "preze punkt nowoś nowy nowa kredy ubezp pożyc hediy puanl puan yenil yeni kredi sigor подар бонус балло баллы",
    "новин новый новая новое новые креди ипоте страх δώρο δώρα πόντο νέο νέα νέες δάνει ασφάλ هدية هدايا نقاط جديد",
    "الجدي جديدة قرض تأمين उपहार बोनस अंक नया नई नए ऋण बीमा",
)

UNSPACED: Final = tuple(
    sorted(
        _words(
            # Chinese, words of grammar
            "我们 我們 您的 您 你的 你 我 这 這 那 将 將 已经 已經 已 正在 了 会 會 可以 没有 沒有 未 请",
            "請 谢谢 感谢 謝謝 感謝 因为 因為 所以 如果 但是 而且",
            "非常 所有 任何 其他 之前 之后 立即 马上 现在 現在 今天 即可 需要 必须",
            "无需 前往 如需 如有 通过 完成 进行 查看 点击 點擊 联系 聯繫 回复",
            # Chinese, what messages are about
            "优惠 優惠 折扣 打折 特价 特價 促销 促銷 活动 活動 免费 免費 礼品 禮品 积分 積分 奖励 抽奖 抽獎 中奖",
            "独家 專屬 专属 限时 限時 限量 新品 全新 推荐 推薦 邀请 邀請 抢购 搶購 节省 享受 升级 升級 会员 會員",
            "会籍 贷款 貸款 利率 保险 保險 投资 理财 下载 下載 参加 加入 领取 領取 订阅 訂閱 退订 账户 賬戶 帳戶",
            "余额 餘額 账单 賬單 帳單 对账单 还款 支付 付款 扣款 逾期 到期 订单 訂單 发货 發貨 送达 配送 快递",
            "快遞 包裹 签收 物流 预约 預約 预订 預訂 确认 確認 取消 更改 变更 更新 密码 密碼 验证 驗證 安全 登录",
            "登入 合同 条款 條款 通知 维护 維護 停电 停水 退款 退货 发票 發票 读数 用电 服务 服務 客户 客服",
            # Japanese beside its syllables
            "割引 無料 特典 限定 抽選 当選 新商品 新発売 お得 会員 登録 配信 停止 注文 発送 配達 配送 請求 支払",
            "予約 変更 確認 解約 契約 明細 口座 残高 利用 案内 重要 規約 改定 設定 期限 返金 商品 送料 購入 応募",
            "招待 紹介 保険 融資 金利",
        ),
        key=lambda word: (-len(word), word),
    )
)

UNSPACED_OFFERS: Final = _words(
    "优惠 優惠 折扣 打折 特价 特價 促销 促銷 免费 免費 奖励 抽奖 抽獎 中奖 限时 限時 推荐 推薦",
    "抢购 搶購 节省 升级 升級 参加 领取 領取 立即 马上",
    "割引 無料 抽選 当選 お得 応募",
)
