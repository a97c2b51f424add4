"""Which of the languages that the rules are written in a message is in, if any of them.

What is in none was read by nobody: no rule and no learned word can find promotion there
(`DefectCode.LANGUAGE_UNKNOWN`). Decided by how many of a message's words are among the commonest of one language, in
its beginning, middle and end. Words and letters that only others have speak against it: neighbours share many words
(Portuguese with Spanish, Swedish with Dutch). Where most letters are of another script, no language is ours. A text of
few words is not judged: a code, an amount, a name. A message in two languages counts as known when one of them is and
makes up much of it.

Pure; never raises; bounded work, whatever the length.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from itertools import repeat
from typing import Final, NamedTuple


class Language(StrEnum):
    """A language that rules are written in (ISO 639-1), or what keeps us from naming one."""

    ENGLISH = "en"
    GERMAN = "de"
    FRENCH = "fr"
    SPANISH = "es"
    DUTCH = "nl"
    ITALIAN = "it"
    INDONESIAN = "id"
    TOO_SHORT = "too short"
    UNKNOWN = "unknown"


class Shares(NamedTuple):
    """The words looked at, how many are common ones of the `best` known language, and how many of none but others."""

    words: int
    best: Language
    known: int
    others: int


MIN_WORDS: Final = 12
"""A text of fewer words is not judged."""
MIN_SHARE: Final = 0.1
"""At least so many of the words are common ones of the language that a text is in."""
MAX_OTHERS: Final = 0.5
"""At most so many words, and letters, of other languages for each word of the best one."""
_WINDOW: Final = 250
_WORDS: Final = {
    "en": """
        the your you to and for on in of it is we at with our from by be this that are us if have can has one up or
        not as will new free may was been get about off before what days now out please so do back account card
        month two first year an day there how all last more who order only pay like after go don time price until
        week today tell which when would next see dear any come reply here them june they paid number take three
        keep under because send need over use march bring call plan than friday ask home since months rate did
        change list know every people yours left within due fee check minutes let notice could sent payment again
        put phone were want nothing each half just good charge asked then still hours service old yes ur book me
        give set add credit got thursday sunday make ends say
    """,
    "de": """
        sie die der und wir ist mit für in ihr ihre bis auf im das den nicht bitte von ab ein haben uns zu an bei
        uhr zum sich noch sind nach dem wird es hat um jetzt ihnen nur aus auch du heute unsere als eine wie mehr
        zur wurde unser vom dein neue da zwei ohne werden oder diese können ihrer über deine einen frau des ihrem
        drei jahr wenn keine gibt sehr liegt ihren wieder minuten tag herr kommt dass vor konto unter dir alle
        erhalten dezember per so zurück märz seit preis neuen statt tage wer monat schon wegen ja rechnung guten
        karte eur dann dich freitag einem hallo januar nichts woche einer adresse weiter war kann bleiben liebe ich
        weil steht bleibt zahlen beim unserem neu tagen läuft unserer vertrag antworten melden geehrte geht endet
        grüßen dürfen brauchen hier haus wochen lassen fragen geld müssen gilt danach samstag zeit alles mal monate
        sparen damit gegen
    """,
    "fr": """
        de votre le vous la et du est en pour au les un nous des sur vos nos une que pas dans par ce ne avant été
        avec notre il mois plus on avez sera deux sont compte jusqu sans jours qui si merci carte se tout prix
        bonjour bien ligne trois facture cette ou sous être ans chez jour ont reste recevoir monsieur avons après
        aux dès service commande depuis samedi pouvez madame qu je an lundi mars fait frais juin elle faire avis
        abonnement jeudi fin mai mardi semaine partir soir janvier année ça vendredi demande rendez avril êtes
        heures part ton seront première même peut pendant nouvelle suite place bon fois assurance aussi offre rappel
        entre septembre disponible moins premier cher nouveau ici cours non espace passe paiement échéance encore
        chaque oui lieu dimanche article gratuit attend octobre déjà temps minutes rue août toute dix attestation
        livraison juillet caisse relevé février tarif date solde décembre reçu faites
    """,
    "es": """
        de el la en que tu por con su del no se te para un las los al lo le si sin ya una antes ha este es desde
        hasta días cuenta más nos puede hemos dos está mes día tus tarjeta hoy correo fue lunes solo tres como qué
        tiene sus hola nosotros precio viernes datos año menos jueves falta hay nueva nuestra usted junio todo casa
        baja tienes cuota sí nuestro factura partir cada va compra pago puedes entre pedido banco será sido meses
        estimado marzo gracias cómo plan domingo aviso aquí horas nuevo bien cliente contrato fecha también semana
        esta sobre mayo primera mensaje servicio seguro martes nada entrega minutos línea cita descuento has plaza
        caja acceso mañana recibo empresa cuando porque ver quieres enero nuestros paga saldo noviembre sábado mi
        octubre miércoles oficina ofertas elige código dni envío mismo queda condiciones información matrícula
        número registro tú hace primer tenemos certificado cualquier pagar ser seguir me empieza
    """,
    "nl": """
        de je op van en is voor uw het in een met niet bij we wij tot aan uur ons te per onze nog dan om nieuwe zijn
        naar over heeft jaar dat nu uit kan vanaf als deze staat die wordt ook terug dit meer hebben door al geen
        mee of wat maand januari binnen dagen drie klaar vandaag dag beste twee onder kunt bent hoe kom zonder graag
        krijgt week rekening gaat eerste komt hem laat zaterdag elke krijg neem maar weer mijn staan prijs geachte
        af minuten korting weken via na niets iets ontvangen doen wilt alles één maanden bericht groet vraag vindt
        worden alleen geef alle zelf wie zo maart zet jij mogen nodig blijven eigen tussen mevrouw loopt betalen
        vragen even nummer zes ontvangt ligt weg oude koffie dinsdag was maandag mag ja vol februari abonnement
        bedrag omdat laatste telefoon weten donderdag vervalt lid vrijdag nieuw waar pakket zit wil ik huis jouw
        sturen goed
    """,
    "it": """
        il la di in per al non un del le con da che ha dal della entro si giorni lo ci una ti tuo se alle fino più
        prima alla hai dell chi sua noi mese sono ore abbiamo suo stato anche senza dei due all può via sul ai gli
        prezzo come su ora nel tre tua anno nuovo sei delle codice gentile carta solo oggi giorno nostro casa minuti
        ancora sabato mesi ne già te perché marzo domenica stata dopo nella ordine dalla allegato quando ogni
        richiesta scadenza cosa vi vuoi venerdì settimana pagamento nuova uno numero questa conto giugno parte
        lunedì passa dalle anni questo domani va cliente dall puoi offerta ufficio novembre disponibile sconto
        nostra corso nostri ciao scade sì sulla buongiorno messaggio ottobre no maggio siamo contratto sarà meno
        documento hanno nostre ricevere quanto firma tra tutto clienti servizio serve tu art piano primo rispondi
        prova consegna importo lei resta verrà saluti fattura tutti sito
    """,
    "id": """
        kami di rp anda dan ini yang ke hari bapak tidak sudah ibu dari dengan untuk dapat bulan jam ada bisa mohon
        sampai ribu kamu mulai baru kartu lagi nomor paket karena pukul terima harga tahun ya tanggal yth biaya kak
        atas pada tanpa sebelum cuma berlaku telah jadi kalau masih bayar per akan mau kasih belum rumah lebih anak
        kirim sekarang dalam malam tagihan pembayaran minggu satu diskon kelas jangan layanan menit rekening sesuai
        tetap isi kerja lewat buat surat orang atau dana naik aplikasi air masuk saldo kantor dua jadwal yuk juta
        bawa buka saja udah pak tiket masa kode bila pelanggan tinggal kepada keluarga selesai daftar jatuh nggak
        sama cukup barang balas tiap ulang kredit terlampir diambil paling kali pakai dulu setelah motor datang
        bukan apa mobil hanya sebagai belanja hormat uang dikirim boleh tempo klaim menjadi listrik sabtu kita beli
        pertama lama akun jumat semua senin pesanan petugas nasabah depan buku melalui pesan polis langganan kakak
    """,
}
# Common words of neighbours that none of ours has: Portuguese, Scandinavian, Polish, Turkish, Romanian, Czech,
# Hungarian, Finnish, Vietnamese.
_OTHERS: Final = """
    ainda ale ancak ao aos att até av az bir blir bude budou być bạn cho com conta csak cu các có của daha dere det
    değil din ditt dla dumneavoastră egy ei eller em era ett että fazer fi foi fra från för gibi har hogy ikke ile
    inte isso için jak jako jeg jest jos jsme jsou już já kadar kell không kun lub là mais med meg mer można muito
    mutta már nasz nebo nem není nie nossa nosso não obrigado och od og også olan olarak olet oraz os oss ovat
    państwa pe pela pelo pentru po pode prin pro prosimy przez på sau sem seu seus sinun siz sizin się ska skal som
    sonra suas sunt são să są tai také também til till trong twoje twój tylko tüm uma vagy vai vaše ved veya você
    voit và vás være vă với às är çok és önnek được że že și
"""
# Latin letters that no known language has; one in a name outweighs no text.
_OTHER_LETTERS: Final = re.compile(
    "[\u00e3\u00e5\u00f0\u00f5\u00f8\u00fe\u0101-\u0151\u0154-\u0177\u0179-\u017f\u0218-\u021b\u1ea0-\u1ef9]"
)
_BITS: Final = 7
_LONGEST_WORD: Final = 30
_MOST_WORDS: Final = (1 << _BITS) - 1
"""No more words are looked at, so that the counts of all languages fit in one small integer."""
_LANGUAGES: Final = tuple(Language(code) for code in _WORDS)


def _weights() -> dict[bytes, int]:
    """Each word with one count in the place of every language that has it; the last place is that of others."""
    weights: dict[bytes, int] = {}
    for place, words in enumerate((*_WORDS.values(), _OTHERS)):
        for word in set(words.split()):
            weights[word.encode()] = weights.get(word.encode(), 0) + (1 << (_BITS * place))
    return weights


def _characters() -> bytes:
    """Every octet as it counts in words: ASCII letters in lower case, other letters as they are, the rest a space."""
    table = bytearray(range(256))
    for code in range(128):
        table[code] = ord(chr(code).lower()) if chr(code).isalpha() else ord(" ")
    return bytes(table)


_WEIGHTS: Final = _weights()
_CHARACTERS: Final = _characters()
_APOSTROPHE: Final = "\u2019".encode()
_DENSE: Final = 1.3  # octets a character: Latin letters with accents stay below it


def language_of(texts: Iterable[str]) -> Language:
    """The known language that the texts of a message are in; `UNKNOWN` in none, `TOO_SHORT` with too few words."""
    sample = _sample(" ".join(texts))
    text = sample.encode("utf-8", "replace")
    if len(text) > _DENSE * len(sample) and _in_another_script(sample):
        return Language.UNKNOWN
    shares = _shares(text)
    if shares.words < MIN_WORDS:
        return Language.TOO_SHORT
    others = shares.others + (len(_OTHER_LETTERS.findall(sample)) if len(text) > len(sample) else 0)
    known = shares.known >= MIN_SHARE * shares.words and others <= MAX_OTHERS * shares.known
    return shares.best if known else Language.UNKNOWN


def _sample(text: str) -> str:
    """The beginning, the middle and the end of a text; a short one whole."""
    if len(text) <= 3 * _WINDOW:
        return text
    middle = (len(text) - _WINDOW) // 2
    return f"{text[:_WINDOW]} {text[middle : middle + _WINDOW]} {text[-_WINDOW:]}"


def _shares(text: bytes) -> Shares:
    words = text.replace(_APOSTROPHE, b" ").translate(_CHARACTERS).split()[:_MOST_WORDS]
    total = sum(map(_WEIGHTS.get, words, repeat(0)))
    counts = [(total >> (_BITS * place)) & _MOST_WORDS for place in range(len(_LANGUAGES) + 1)]
    known = max(counts[:-1])
    number = len(words)
    if words and max(map(len, words)) > _LONGEST_WORD:  # rulers, codes and keys are no words
        number = sum(len(word) <= _LONGEST_WORD for word in words)
    return Shares(number, _LANGUAGES[counts.index(known)], known, counts[-1])


def _in_another_script(text: str) -> bool:
    """Whether most letters are of no Latin script; texts in those have few spaces, and few words that count."""
    letters = list(filter(str.isalpha, text))
    return len(letters) >= MIN_WORDS and sum(map(_is_latin, letters)) < len(letters) / 2


def _is_latin(char: str) -> bool:
    return char < "\u0250" or "\u1e00" <= char < "\u1f00"
