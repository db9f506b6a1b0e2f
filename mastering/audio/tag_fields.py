"""The fields of a song's tags: one table of what each is called in ID3, MP4 and RIFF INFO, in Vorbis comments and APE.

Whatever is not in this table stays out of a master. So does what holds for the old file's sound alone: ReplayGain,
R128 gains, iTunNORM, iTunSMPB, encoders and their settings, fingerprints. The names are those that MusicBrainz Picard,
Mp3tag and TagLib agree on, and ID3v2.4, RFC 7845 (Opus) and the Vorbis comment specification where they have one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain


@dataclass(frozen=True)
class Field:
    """One field. Its `name` is the Vorbis comment's, in lower case, and our own."""

    words: str
    """What a report calls it."""
    name: str
    id3: str
    """Frames of ID3v2.4; of several the first is written. TXXX, UFID and TIPL with a description behind a colon."""
    mp4: str
    """An atom, or the name of a freeform item of com.apple.iTunes."""
    also: tuple[str, ...] = ()
    """Other names where names are free, in lower case; most are read only where `name` is missing."""
    info: str = ""

    """Of a list of RIFF, where a program may look for no other."""

    @property
    def is_atom(self) -> bool:
        return len(self.mp4) == 4 and self.mp4 not in _FREEFORM_OF_FOUR

    @property
    def free_names(self) -> tuple[str, ...]:
        """What the field is called where names are free, in lower case."""
        in_id3 = self.id3.partition(":")[2] if self.id3.startswith("TXXX:") else self.name
        in_mp4 = self.name if self.is_atom else self.mp4
        return tuple(dict.fromkeys((self.name, in_id3.lower(), in_mp4.lower(), *self.also)))


_FREEFORM_OF_FOUR = ("ISRC", "ASIN", "MOOD")
"""Names that are no atoms, though they have four letters."""

FIELDS = (
    Field("title", "title", "TIT2", "\xa9nam", info="INAM"),
    Field("subtitle", "subtitle", "TIT3", "SUBTITLE"),
    Field("artist", "artist", "TPE1", "\xa9ART", info="IART"),
    Field("artists", "artists", "TXXX:ARTISTS", "ARTISTS"),
    Field("album", "album", "TALB", "\xa9alb", info="IPRD"),
    Field("album artist", "albumartist", "TPE2", "aART", ("album artist", "album_artist")),
    Field("track number", "tracknumber", "TRCK", "trkn", ("track",), "ITRK"),
    Field("total of tracks", "tracktotal", "TRCK", "trkn", ("totaltracks",)),
    Field("disc number", "discnumber", "TPOS", "disk", ("disc",)),
    Field("total of discs", "disctotal", "TPOS", "disk", ("totaldiscs",)),
    Field("disc subtitle", "discsubtitle", "TSST", "DISCSUBTITLE"),
    Field("date", "date", "TDRC", "\xa9day", ("year",), "ICRD"),
    Field("original date", "originaldate", "TDOR", "ORIGINALDATE"),
    Field("genre", "genre", "TCON", "\xa9gen", info="IGNR"),
    Field("mood", "mood", "TMOO", "MOOD"),
    Field("grouping", "grouping", "TIT1 GRP1", "\xa9grp"),
    Field("comment", "comment", "COMM", "\xa9cmt", ("description",), "ICMT"),
    Field("lyrics", "lyrics", "USLT", "\xa9lyr", ("unsyncedlyrics", "unsynced lyrics")),
    Field("language", "language", "TLAN", "LANGUAGE", info="ILNG"),
    Field("BPM", "bpm", "TBPM", "tmpo", ("tempo",)),
    Field("key", "key", "TKEY", "initialkey", ("initial key",)),
    Field("ISRC", "isrc", "TSRC", "ISRC", info="ISRC"),
    Field("label", "label", "TPUB", "LABEL", ("publisher", "organization")),
    Field("catalogue number", "catalognumber", "TXXX:CATALOGNUMBER", "CATALOGNUMBER"),
    Field("barcode", "barcode", "TXXX:BARCODE", "BARCODE"),
    Field("ASIN", "asin", "TXXX:ASIN", "ASIN"),
    Field("copyright", "copyright", "TCOP", "cprt", info="ICOP"),
    Field("medium", "media", "TMED", "MEDIA"),
    Field("compilation", "compilation", "TCMP", "cpil"),
    Field("composer", "composer", "TCOM", "\xa9wrt", info="IMUS"),
    Field("lyricist", "lyricist", "TEXT", "LYRICIST", info="IWRI"),
    Field("conductor", "conductor", "TPE3", "CONDUCTOR"),
    Field("performer", "performer", "TMCL", "PERFORMER"),
    Field("remixer", "remixer", "TPE4", "REMIXER", ("mixartist",)),
    Field("arranger", "arranger", "TIPL:arranger", "ARRANGER"),
    Field("producer", "producer", "TIPL:producer", "PRODUCER"),
    Field("engineer", "engineer", "TIPL:engineer", "ENGINEER"),
    Field("mixer", "mixer", "TIPL:mix", "MIXER"),
    Field("DJ mixer", "djmixer", "TIPL:DJ-mix", "DJMIXER"),
    Field("work", "work", "TXXX:WORK", "\xa9wrk"),
    Field("movement", "movementname", "MVNM", "\xa9mvn"),
    Field("movement number", "movement", "MVIN", "\xa9mvi"),
    Field("total of movements", "movementtotal", "MVIN", "\xa9mvc"),
    Field("title's sort name", "titlesort", "TSOT", "sonm"),
    Field("artist's sort name", "artistsort", "TSOP", "soar"),
    Field("album's sort name", "albumsort", "TSOA", "soal"),
    Field("album artist's sort name", "albumartistsort", "TSO2", "soaa"),
    Field("composer's sort name", "composersort", "TSOC", "soco"),
    Field("script", "script", "TXXX:SCRIPT", "SCRIPT"),
    Field("release's country", "releasecountry", "TXXX:MusicBrainz Album Release Country",
          "MusicBrainz Album Release Country"),
    Field("release's status", "releasestatus", "TXXX:MusicBrainz Album Status", "MusicBrainz Album Status",
          ("musicbrainz_albumstatus",)),
    Field("release's type", "releasetype", "TXXX:MusicBrainz Album Type", "MusicBrainz Album Type",
          ("musicbrainz_albumtype",)),
    Field("MusicBrainz recording", "musicbrainz_trackid", "UFID:http://musicbrainz.org", "MusicBrainz Track Id"),
    Field("MusicBrainz track", "musicbrainz_releasetrackid", "TXXX:MusicBrainz Release Track Id",
          "MusicBrainz Release Track Id"),
    Field("MusicBrainz release", "musicbrainz_albumid", "TXXX:MusicBrainz Album Id", "MusicBrainz Album Id"),
    Field("MusicBrainz release group", "musicbrainz_releasegroupid", "TXXX:MusicBrainz Release Group Id",
          "MusicBrainz Release Group Id"),
    Field("MusicBrainz artist", "musicbrainz_artistid", "TXXX:MusicBrainz Artist Id", "MusicBrainz Artist Id"),
    Field("MusicBrainz album artist", "musicbrainz_albumartistid", "TXXX:MusicBrainz Album Artist Id",
          "MusicBrainz Album Artist Id"),
    Field("MusicBrainz work", "musicbrainz_workid", "TXXX:MusicBrainz Work Id", "MusicBrainz Work Id"),
    Field("MusicBrainz disc", "musicbrainz_discid", "TXXX:MusicBrainz Disc Id", "MusicBrainz Disc Id"),
    Field("AcoustID", "acoustid_id", "TXXX:Acoustid Id", "Acoustid Id"),
)  # fmt: skip
NUMBERS = {"tracknumber": "tracktotal", "discnumber": "disctotal", "movement": "movementtotal"}
"""Fields that are a number of a total, which ID3 and APE write as one: 3/12."""
FREE_NAMES = {name: field for field in FIELDS for name in field.free_names}
WORDS = {field.name: field.words for field in FIELDS}
_MERGED = ("comment", "label", "lyrics")
"""Fields whose other names may say something else beside the first."""

Texts = dict[str, tuple[str, ...]]
"""All values of each field, by its name."""


def by_free_names(found: Mapping[str, Sequence[str]]) -> Texts:
    """Values by field, of values by the names (in lower case) that a container of free names has for them."""
    texts: Texts = {}
    for field in FIELDS:
        held = [found[name] for name in field.free_names if found.get(name)]
        if held:
            texts[field.name] = tuple(chain(*(held if field.name in _MERGED else held[:1])))
    return texts
