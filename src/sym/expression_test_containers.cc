// Containers of the standard library as they are shown, and their parts.
#include "sym/expression_test.h"

#include <array>
#include <atomic>
#include <deque>
#include <forward_list>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <stack>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

namespace
{
struct point {
    int x, y;
};
struct alignas(32) wide {
    int n;
};
struct empty {
};
using table = std::map<std::string, std::vector<int>>;

void __attribute__((noinline, optimize("O0"))) sequences()
{
    std::vector<int> numbers{1, 2, 3}, none, many(5000, 7), taken;
    std::vector<bool> bits{true, false, true};
    std::vector<point> points{{1, 2}, {3, 4}};
    std::vector<std::string> words{"one", "", "three"};
    std::array<short, 3> fixed{4, 5, 6};
    std::list<int> list{10, 20, 30}, no_list;
    std::list<wide> wide_list{{5}, {6}};
    std::forward_list<long> chain{-1, -2};
    std::deque<int> deque, longer;
    std::stack<int> stack;
    std::queue<char> queue;
    std::priority_queue<int, std::vector<int>> first;
    for (int i = 0; i < 1000; i++)
        longer.push_back(i);
    for (int i = 0; i < 300; i++)
        longer.pop_front();
    deque.push_back(1);
    deque.push_front(0);
    stack.push(3);
    queue.push('q');
    first.push(9);
    check_shown("numbers", "[3]{1, 2, 3}");
    check_shown("none", "[0]{}");
    check_shown("many", "[5000]{7, 7, 7, 7, 7, 7, 7, 7, 7, 7, ...}");
    check_shown("bits", "[3]{true, false, true}");
    check_shown("points", "[2]{{x = 1, y = 2}, {x = 3, y = 4}}");
    check_shown("words", "[3]{\"one\", \"\", \"three\"}");
    check_shown("fixed", "{4, 5, 6}");
    check_shown("list", "[3]{10, 20, 30}");
    check_shown("no_list", "[0]{}");
    check_shown("wide_list", "[2]{{n = 5}, {n = 6}}");
    check_shown("chain", "[2]{-1, -2}");
    check_shown("deque", "[2]{0, 1}");
    check_shown("longer", "[700]{300, 301, 302, 303, 304, 305, 306, 307, 308, 309, ...}");
    check_shown("stack", "[1]{3}");
    check_shown("queue", "[1]{113 'q'}");
    check_shown("first", "[1]{9}");
    check_parts("numbers", 0, 10, "[0]=1 [1]=2 [2]=3");
    check_parts("numbers", 1, 1, "[1]=2");
    check_parts("many", 4998, 10, "[4998]=7 [4999]=7");
    check_parts("none", 0, 10, "");
    check_parts("bits", 1, 10, "[1]=false [2]=true");
    check_parts("points", 1, 10, "[1]={x = 3, y = 4}");
    check_parts("words", 2, 1, "[2]=\"three\"");
    check_parts("fixed", 2, 10, "[2]=6");
    check_parts("list", 1, 10, "[1]=20 [2]=30");
    check_parts("longer", 698, 10, "[698]=998 [699]=999");
    check_parts("stack", 0, 10, "[0]=3");
    CHECK(numbers[1]);
    CHECK(points[1].y * 10 + fixed[2]);
    CHECK(words[2][1]);
    check_here("words[0] == \"one\"", 1, 0);
    check_here("&many[7] - &many[0]", 7, 0);
    check_fails("list[0]", "does not go with");
    check_fails("bits[0]", "does not go with");
    taken = std::move(numbers);
    check_shown("numbers", "[0]{}");
    // A vector that was overwritten is the struct that it is.
    void *kept = *(void **)&taken;
    *(void **)&taken = (void *)-4;
    check_begins("taken", "{<base> ");
    *(void **)&taken = kept;
}

void __attribute__((noinline, optimize("O0"))) associations()
{
    std::map<std::string, int> ages{{"ann", 31}, {"bob", 27}}, nobody;
    std::set<int> numbers;
    std::map<int, std::vector<point>> paths{{1, {{1, 2}}}};
    std::multimap<int, char> letters{{1, 'a'}, {1, 'b'}};
    std::unordered_map<int, point> places{{7, {1, 2}}};
    std::unordered_set<std::string> one{"only"};
    std::map<point *, wide> wides;
    table lists{{"odd", {1, 3}}, {"even", {2}}};
    for (int i = 0; i < 500; i++)
        numbers.insert(i * 37 % 500);
    wides[nullptr].n = 8;
    check_shown("ages", "[2]{\"ann\": 31, \"bob\": 27}");
    check_shown("nobody", "[0]{}");
    check_shown("numbers", "[500]{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...}");
    check_shown("letters", "[2]{1: 97 'a', 1: 98 'b'}");
    check_shown("places", "[1]{7: {x = 1, y = 2}}");
    check_shown("one", "[1]{\"only\"}");
    check_shown("wides", "[1]{0x0: {n = 8}}");
    check_shown("lists", "[2]{\"even\": [1]{2}, \"odd\": [2]{1, 3}}");
    check_parts("paths", 0, 10, "[1]=[1]{{x = 1, y = 2}}");
    check_parts("ages", 0, 10, "[\"ann\"]=31 [\"bob\"]=27");
    check_parts("numbers", 498, 10, "[498]=498 [499]=499");
    check_parts("places", 0, 10, "[7]={x = 1, y = 2}");
    check_parts("lists", 1, 10, "[\"odd\"]=[2]{1, 3}");
}

void __attribute__((noinline, optimize("O0"))) texts()
{
    std::string small = "short", large(100, 'x'), nul("a\0b", 3);
    std::string_view view = std::string_view(small).substr(1, 3);
    std::wstring wide = L"w\u00e4";
    std::u16string utf16 = u"\U0001f600!";
    std::u32string utf32 = U"\u20ac";
    check_shown("small", "\"short\"");
    check_shown("large", "\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"...");
    check_shown("nul", "\"a\\000b\"");
    check_shown("view", "\"hor\"");
    check_shown("wide", "\"w\u00e4\"");
    check_shown("utf16", "\"\U0001f600!\"");
    check_shown("utf32", "\"\u20ac\"");
    check_parts("small", 0, 10, "");
    CHECK(small[4] == 't');
    CHECK(view[0]);
    CHECK(utf32[0]);
}

void __attribute__((noinline, optimize("O0"))) wrappers()
{
    auto unique = std::make_unique<point>(point{5, 6});
    std::unique_ptr<int> null;
    auto shared = std::make_shared<std::string>("shared");
    std::weak_ptr<std::string> weak = shared;
    std::optional<int> some = 5, nothing;
    std::optional<std::string> word = "word";
    std::variant<int, std::string, double> number = 1, text = "text", real = 0.5;
    std::tuple<int, std::string, empty, double> tuple{1, "two", {}, 3.5};
    std::tuple<> unit;
    std::pair<int, std::string> pair{1, "p"};
    std::atomic<int> counter{12};
    std::atomic<bool> flag{true};
    point p{7, 8};
    std::atomic<point *> where{nullptr};
    std::reference_wrapper<point> reference = p;
    check_parts("unique", 0, 10, "*={x = 5, y = 6}");
    check_shown("null", "0x0");
    check_parts("null", 0, 10, "");
    check_parts("shared", 0, 10, "*=\"shared\"");
    check_parts("weak", 0, 10, "*=\"shared\"");
    check_shown("some", "5");
    check_shown("nothing", "nullopt");
    check_shown("word", "\"word\"");
    check_shown("number", "1");
    check_shown("text", "\"text\"");
    check_shown("real", "0.5");
    check_shown("tuple", "{1, \"two\", {}, 3.5}");
    check_parts("tuple", 0, 10, "[0]=1 [1]=\"two\" [2]={} [3]=3.5");
    check_shown("unit", "{}");
    check_shown("pair", "{first = 1, second = \"p\"}");
    check_shown("counter", "12");
    check_shown("flag", "true");
    check_shown("where", "0x0");
    empty nothing_inside;
    check_parts("nothing_inside", 0, 10, "");
    check_parts("pair", 0, 10, "first=1 second=\"p\"");
    check_parts("reference", 0, 10, "*={x = 7, y = 8}");
}
} // namespace

extern "C" void test_containers(void)
{
    sequences();
    associations();
    texts();
    wrappers();
}
