// C++ in expressions: members of this, references, namespaces, bases, smart pointers, strings.
#include "sym/expression_test.h"

#include <memory>
#include <string>
#include <vector>

namespace outer
{
int number = 17;
enum class mode { first = 3, second };
struct base {
    int in_base = 8;
};
template <typename T> struct box {
    T content;
};
namespace inner
{
static long hidden = 99;
struct derived : base {
    int own = 5;
    box<short> boxed{-4};
    static int shared;
    mode m = mode::second;
    std::string title = "a title";
    std::unique_ptr<base> owned{new base};
    void __attribute__((noinline, optimize("O0"))) check(const base &reference, base *pointer)
    {
        int &alias = own;
        CHECK(own + in_base);
        CHECK(this->own);
        CHECK(boxed.content);
        CHECK(reference.in_base);
        CHECK(&reference == pointer);
        CHECK(alias * 2);
        CHECK(&alias == &own);
        CHECK(outer::number);
        CHECK(::outer::number + 1);
        CHECK(outer::inner::hidden);
        CHECK(static_cast<long>(own) << 40);
        CHECK(reinterpret_cast<unsigned char *>(pointer)[0]);
        CHECK(((outer::inner::derived *)this)->in_base);
        CHECK(((box<short> *)&boxed)->content);
        CHECK(nullptr == pointer);
        CHECK(true + false);
        CHECK(owned->in_base);
        CHECK(m == outer::mode::second);
        check_here("title == \"a title\"", 1, 0);
        check_here("contains(title, \"tit\")", 1, 0);
        check_shown("m", "second");
        CHECK(number + (int)mode::first);
        CHECK(hidden);
        CHECK(inner::hidden - (m == mode::first));
        check_fails("(int &)own", "cast to a reference");
        check_fails("static_cast<long &>(own)", "cast to a reference");
        check_fails("owned->missing", "has no member missing");
    }
};
} // namespace inner
} // namespace outer

extern "C" void test_cplusplus(void)
{
    outer::base b;
    outer::inner::derived d;
    d.check(b, &b);
}
