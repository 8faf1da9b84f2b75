"""Every function of Kubernetes' CEL with its overloads: what the checker knows.

Owns: Overload, functions(). Called by: checker. Never does: compute (the runtime and the function files do).
A line is a name and its overloads, `.` marks members (their target is the first parameter); single capitals are type variables.
Source: cel-go's standard library, ext/{strings,sets,lists}.go, cel/library.go (optionals), apiserver/pkg/cel/library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from k1s.api.cel.types import SCALARS, Type, list_of, map_of, optional_of, type_of

_NUMBERS = ("int", "uint", "double")
_ORDERED = ("bool", "string", "bytes", "timestamp", "duration")
_OPAQUE = {
    "quantity": "kubernetes.Quantity",
    "semver": "kubernetes.Semver",
    "url": "kubernetes.URL",
    "format": "kubernetes.NamedFormat",
    "ip": "net.IP",
    "cidr": "net.CIDR",
    "authorizer": "kubernetes.authorization.Authorizer",
    "pathCheck": "kubernetes.authorization.PathCheck",
    "groupCheck": "kubernetes.authorization.GroupCheck",
    "resourceCheck": "kubernetes.authorization.ResourceCheck",
    "decision": "kubernetes.authorization.Decision",
}

_TABLE = """
_==_ (A,A)bool
_!=_ (A,A)bool
_&&_ (bool,bool)bool
_||_ (bool,bool)bool
!_ (bool)bool
_?_:_ (bool,A,A)A
@not_strictly_false (bool)bool
__not_strictly_false__ (bool)bool
-_ (int)int (double)double
_+_ (int,int)int (uint,uint)uint (double,double)double (string,string)string (bytes,bytes)bytes (list<A>,list<A>)list<A> \
(timestamp,duration)timestamp (duration,timestamp)timestamp (duration,duration)duration
_-_ (int,int)int (uint,uint)uint (double,double)double (timestamp,timestamp)duration (timestamp,duration)timestamp \
(duration,duration)duration
_*_ (int,int)int (uint,uint)uint (double,double)double
_/_ (int,int)int (uint,uint)uint (double,double)double
_%_ (int,int)int (uint,uint)uint
@in (A,list<A>)bool (A,map<A,B>)bool
_[_] (list<A>,int)A (map<A,B>,A)B (optional<list<V>>,int)optional<V> (optional<map<K,V>>,K)optional<V>
_[?_] (list<V>,int)optional<V> (optional<list<V>>,int)optional<V> (map<K,V>,K)optional<V> (optional<map<K,V>>,K)optional<V>
size (string)int (bytes)int (list<A>)int (map<A,B>)int .(string)int .(bytes)int .(list<A>)int .(map<A,B>)int
bool (bool)bool (string)bool
bytes (bytes)bytes (string)bytes
double (double)double (int)double (uint)double (string)double
duration (duration)duration (int)duration (string)duration
dyn (A)dyn
int (int)int (uint)int (double)int (duration)int (string)int (timestamp)int
string (string)string (bool)string (bytes)string (double)string (duration)string (int)string (timestamp)string (uint)string \
(ip)string (cidr)string
timestamp (timestamp)timestamp (int)timestamp (string)timestamp
type (A)type<A>
uint (uint)uint (int)uint (double)uint (string)uint
contains .(string,string)bool
endsWith .(string,string)bool
startsWith .(string,string)bool
matches (string,string)bool .(string,string)bool
getFullYear .(timestamp)int .(timestamp,string)int
getMonth .(timestamp)int .(timestamp,string)int
getDayOfYear .(timestamp)int .(timestamp,string)int
getDayOfMonth .(timestamp)int .(timestamp,string)int
getDate .(timestamp)int .(timestamp,string)int
getDayOfWeek .(timestamp)int .(timestamp,string)int
getHours .(timestamp)int .(timestamp,string)int .(duration)int
getMinutes .(timestamp)int .(timestamp,string)int .(duration)int
getSeconds .(timestamp)int .(timestamp,string)int .(duration)int
getMilliseconds .(timestamp)int .(timestamp,string)int .(duration)int
charAt .(string,int)string
indexOf .(string,string)int .(string,string,int)int .(list<T>,T)int
lastIndexOf .(string,string)int .(string,string,int)int .(list<T>,T)int
join .(list<string>)string .(list<string>,string)string
lowerAscii .(string)string
upperAscii .(string)string
replace .(string,string,string)string .(string,string,string,int)string
split .(string,string)list<string> .(string,string,int)list<string>
substring .(string,int)string .(string,int,int)string
trim .(string)string
format .(string,list<dyn>)string
strings.quote (string)string
sets.contains (list<T>,list<T>)bool
sets.equivalent (list<T>,list<T>)bool
sets.intersects (list<T>,list<T>)bool
isSorted .(list<int>)bool .(list<double>)bool .(list<bool>)bool .(list<duration>)bool .(list<timestamp>)bool .(list<string>)bool \
.(list<bytes>)bool
sum .(list<int>)int .(list<double>)double .(list<duration>)duration
min .(list<int>)int .(list<double>)double .(list<bool>)bool .(list<duration>)duration .(list<timestamp>)timestamp \
.(list<string>)string .(list<bytes>)bytes
max .(list<int>)int .(list<double>)double .(list<bool>)bool .(list<duration>)duration .(list<timestamp>)timestamp \
.(list<string>)string .(list<bytes>)bytes
includes .(list<T>,T)bool
slice .(list<T>,int,int)list<T>
flatten .(list<list<T>>)list<T> .(list<dyn>,int)list<dyn>
sort .(list<int>)list<int> .(list<uint>)list<uint> .(list<double>)list<double> .(list<bool>)list<bool> \
.(list<duration>)list<duration> .(list<timestamp>)list<timestamp> .(list<string>)list<string> .(list<bytes>)list<bytes>
distinct .(list<T>)list<T>
lists.@sortByAssociatedKeys .(list<T>,list<U>)list<T>
reverse .(list<T>)list<T>
lists.range (int)list<int>
first .(list<T>)optional<T>
last .(list<T>)optional<T>
find .(string,string)string
findAll .(string,string)list<string> .(string,string,int)list<string>
url (string)url
isURL (string)bool
getScheme .(url)string
getHost .(url)string
getHostname .(url)string
getPort .(url)string
getEscapedPath .(url)string
getQuery .(url)map<string,list<string>>
quantity (string)quantity
isQuantity (string)bool
sign .(quantity)int
isInteger .(quantity)bool
asInteger .(quantity)int
asApproximateFloat .(quantity)double
add .(quantity,quantity)quantity .(quantity,int)quantity
sub .(quantity,quantity)quantity .(quantity,int)quantity
isLessThan .(quantity,quantity)bool .(semver,semver)bool
isGreaterThan .(quantity,quantity)bool .(semver,semver)bool
compareTo .(quantity,quantity)int .(semver,semver)int
semver (string)semver (string,bool)semver
isSemver (string)bool (string,bool)bool
major .(semver)int
minor .(semver)int
patch .(semver)int
isIP (string)bool
ip (string)ip .(cidr)ip
ip.isCanonical (string)bool
family .(ip)int
isUnspecified .(ip)bool
isLoopback .(ip)bool
isLinkLocalMulticast .(ip)bool
isLinkLocalUnicast .(ip)bool
isGlobalUnicast .(ip)bool
isCIDR (string)bool
cidr (string)cidr
containsIP .(cidr,string)bool .(cidr,ip)bool
containsCIDR .(cidr,string)bool .(cidr,cidr)bool
prefixLength .(cidr)int
masked .(cidr)cidr
format.named (string)optional<format>
validate .(format,string)optional<list<string>>
path .(authorizer,string)pathCheck
group .(authorizer,string)groupCheck
serviceAccount .(authorizer,string,string)authorizer
resource .(groupCheck,string)resourceCheck
subresource .(resourceCheck,string)resourceCheck
namespace .(resourceCheck,string)resourceCheck
name .(resourceCheck,string)resourceCheck
fieldSelector .(resourceCheck,string)resourceCheck
labelSelector .(resourceCheck,string)resourceCheck
check .(pathCheck,string)decision .(resourceCheck,string)decision
errored .(decision)bool
error .(decision)string
allowed .(decision)bool
reason .(decision)string
jsonpatch.escapeKey (string)string
optional.of (V)optional<V>
optional.ofNonZeroValue (V)optional<V>
optional.none ()optional<V>
optional.unwrap (list<optional<V>>)list<V>
unwrapOpt .(list<optional<V>>)list<V>
value .(optional<V>)V
hasValue .(optional<V>)bool
or .(optional<V>,optional<V>)optional<V>
orValue .(optional<V>,V)V
"""
_FORMATS = (
    *("dns1123Label", "dns1123Subdomain", "dns1035Label", "qualifiedName", "dns1123LabelPrefix", "dns1123SubdomainPrefix"),
    *("dns1035LabelPrefix", "labelValue", "uri", "uuid", "byte", "date", "datetime"),
)
_WORD = re.compile(r"[A-Za-z]+|[<>,]")
_SIGNATURE = re.compile(r"(\.?)\(([^()]*)\)(\S+)")


@dataclass(frozen=True, slots=True)
class Overload:
    params: tuple[Type, ...]
    result: Type
    member: bool
    variables: tuple[str, ...]


def opaque(name: str) -> Type:
    """A type of Kubernetes' own: quantity, ip, authorizer, ..."""
    return Type("opaque", (), _OPAQUE[name])


def _type(words: list[str]) -> Type:
    name = words.pop(0)
    params: list[Type] = []
    if words and words[0] == "<":
        while words.pop(0) in ("<", ","):
            params.append(_type(words))
            if words[0] not in "<,>":
                raise ValueError(words)
    if name == "list":
        return list_of(params[0])
    if name == "map":
        return map_of(params[0], params[1])
    if name == "optional":
        return optional_of(params[0])
    if name == "type":
        return type_of(params[0])
    if len(name) == 1:
        return Type("var", (), name)
    return SCALARS.get(name) or opaque(name)


def _types(text: str) -> tuple[Type, ...]:
    words, found = _WORD.findall(text), []
    while words:
        found.append(_type(words))
        if words:
            words.pop(0)
    return tuple(found)


def _overload(member: bool, params: str, result: str) -> Overload:
    variables = tuple(dict.fromkeys(re.findall(r"\b[A-Z]\b", f"{params},{result}")))
    return Overload(_types(params), _types(result)[0], member, variables)


@cache
def functions() -> dict[str, tuple[Overload, ...]]:
    """By name; made at the first expression."""
    out: dict[str, tuple[Overload, ...]] = {}
    for line in _TABLE.strip().splitlines():
        name, _, rest = line.partition(" ")
        out[name] = tuple(_overload(bool(dot), params, result) for dot, params, result in _SIGNATURE.findall(rest))
    for name in ("_<_", "_<=_", "_>_", "_>=_"):
        pairs = [(a, a) for a in _ORDERED] + [(a, b) for a in _NUMBERS for b in _NUMBERS]
        out[name] = tuple(_overload(False, f"{a},{b}", "bool") for a, b in pairs)
    for name in _FORMATS:
        out[f"format.{name}"] = (_overload(False, "", "format"),)
    return out
